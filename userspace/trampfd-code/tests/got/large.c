/* 256 KiB for each thread. */
__thread int large[65536];
int touch(int x)
{
	int i, sum = 0;
	for (i = 0; i < 65536; i++)
		large[i] += x;
	for (i = 0; i < 65536; i += 65536)
		sum += large[i];
	return sum;
}
