/* Two frames that the unwinder and the debugger walk through. */
extern int visit(int);
__attribute__((noinline)) int inner(int x) { return visit(x) + 1; }
__attribute__((noinline)) int middle(int x) { return inner(x) + 1; }
int visits = 1;
