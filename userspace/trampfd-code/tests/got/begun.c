/* Variables of threads that do not begin as zero. */
static int target = 3;
__thread int first = 41;
__thread int *to_target = &target;
static __thread int second = 7;
__thread int zero;

int sum(void) { return ++first + second++ + *to_target + zero++; }
