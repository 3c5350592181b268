int outer = 1000;
int twice(int x) { return 2 * x; }
