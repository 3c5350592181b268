/* Has what the seeds look for, and looks for what they have. */
extern int f(int n);

int value = 7;

int outside(int n)
{
	return n ? f(n - 1) : value;
}
