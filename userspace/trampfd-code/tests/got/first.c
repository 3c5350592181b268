/* What compilers make references of: calls, data, tables, strings, and names of others. */
extern int twice(int);
extern int outer;
extern int absent(void) __attribute__((weak));

int counter = 5;
static int calls;
int zeros[100];
const char *const names[] = {"zero", "one", "two"};
static const long weights[] = {3, 1, 4, 1, 5};
static int own(int x) { return x - 1; }
int (*pointer)(int) = own;
int (*theirs)(int) = twice;

int run(int x)
{
	calls++;
	counter += x;
	zeros[x % 100] = x;
	return twice(x) + outer + counter + calls + zeros[(x + 1) % 100];
}

int pick(int i)
{
	switch (i) {
	case 0: return run(1);
	case 1: return counter;
	case 2: return twice(twice(3));
	case 3: return pointer(8);
	case 4: return theirs(9);
	case 5: return (int)weights[i - 1];
	case 6: return absent ? absent() : 77;
	default: return -1;
	}
}

const char *name_of(int i) { return names[i]; }
