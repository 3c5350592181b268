/* A library's variable of threads. */
__thread int mine;
void set_mine(int x) { mine = x; }
