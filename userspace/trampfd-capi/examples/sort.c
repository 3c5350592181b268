// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * qsort with a key, and a callback of a signature that only the run knows.
 *
 *	cc sort.c $(pkg-config --cflags --libs trampfd)
 */
#include <stdio.h>
#include <stdlib.h>
#include <trampfd.h>

/* Two arguments are qsort's, the third is ours. */
static int by_distance(const void *a, const void *b, void *origin)
{
	int from = *(const int *)origin;

	return abs(*(const int *)a - from) - abs(*(const int *)b - from);
}

static void print_all(const trampfd_signature *signature, void *result, void *const *args,
		      void *prefix)
{
	(void)signature;
	*(int *)result = printf("%s %d %g\n", (const char *)prefix, *(int *)args[0],
				*(double *)args[1]);
}

int main(void)
{
	int numbers[] = { 1, 9, 5, 12, 7 }, origin = 8;
	trampfd_type types[] = { TRAMPFD_INT, TRAMPFD_DOUBLE };
	trampfd_signature *signature;
	trampfd_function sort, print;

	sort = trampfd_new((trampfd_function)by_distance, &origin, TRAMPFD_ARG(2));
	signature = trampfd_signature_new(types, 2, TRAMPFD_INT);
	print = trampfd_dyn_new(signature, print_all, "number");
	trampfd_signature_free(signature);
	if (!sort || !print) {
		fprintf(stderr, "%s: %s\n", trampfd_strerror(trampfd_last_error()),
			trampfd_detail());
		return 1;
	}
	qsort(numbers, 5, sizeof(int), (int (*)(const void *, const void *))sort);
	for (int n = 0; n < 5; n++)
		((int (*)(int, double))print)(numbers[n], numbers[n] / 2.0);
	trampfd_free(sort);
	trampfd_free(print);
	return 0;
}
