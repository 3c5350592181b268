/* Variables of threads: own ones that begin as zero, and the program's. */
#ifndef PROGRAM
#define PROGRAM extern
#endif
PROGRAM __thread int program_variable;
__thread int mine;
static __thread long also;
__thread char wide[40] __attribute__((aligned(32)));

int bump(int by) { mine += by; also += 1; wide[39] = 7; return mine * 100 + (int)also; }
int *address_of_mine(void) { return &mine; }
long *address_of_also(void) { return &also; }
int read_program(void) { return program_variable; }
