/* Tentative and weak definitions, and an aligned one. */
int outer;
int table[100] __attribute__((aligned(64)));
__attribute__((weak)) int twice(int x) { return -1; }
int read_outer(void) { return outer; }
int call_twice(int x) { return twice(x); }
int fill(int x)
{
	int i, sum = 0;
	for (i = 0; i < 100; i++)
		table[i] = x;
	for (i = 0; i < 100; i++)
		sum += table[i];
	return sum;
}
