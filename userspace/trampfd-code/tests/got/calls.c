/* One call. */
extern int twice(int);
int call_it(int x) { return twice(x) + 1; }
