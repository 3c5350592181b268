int outer = 1000;
int twice(int x) { return 2 * x; }
#ifdef SECTION
__attribute__((section(SECTION), used)) static const long start = 1;
#endif
