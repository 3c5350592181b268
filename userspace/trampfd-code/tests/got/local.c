/* As thread.c, all its own. */
#define PROGRAM static
#include "thread.c"
