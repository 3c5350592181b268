/* Uses the same names of others as first.c, and its functions. */
extern int twice(int);
extern int outer;
extern int run(int);
extern int counter;
int both[3];

int again(int x)
{
	both[0] = run(x);
	both[1] = twice(counter);
	both[2] = outer;
	return both[0] + both[1] + both[2];
}

int (*address_of_twice(void))(int) { return twice; }
