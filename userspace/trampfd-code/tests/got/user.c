/* A variable of threads that another set has. */
extern __thread int mine;
int read_mine(void) { return mine; }
