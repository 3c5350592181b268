// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Closures of libffi.so.8, of one of KINDS each. A closure's user data is its
 * answer; what it gives depends on that and on every argument.
 */
#include <ffi.h>
#include <stddef.h>

#include "lives.h"

#if defined(__x86_64__)
#include "arch/x86_64.h"
#endif

struct pair {
	int a;
	double b;
};

enum {
	INTS,		/* int(int, int) */
	DOUBLES,	/* double(double, double) */
	PAIRS,		/* struct pair(struct pair) */
	LONGS,		/* long(ten longs) */
	MIXED,		/* float(signed char, float, void *, short) */
	OTHER,		/* int(int, int) of another convention */
	KINDS
};

static ffi_type *pair_fields[] = { &ffi_type_sint, &ffi_type_double, NULL };
static ffi_type pair_type = { 0, 0, FFI_TYPE_STRUCT, pair_fields };

static ffi_type *ints[] = { &ffi_type_sint, &ffi_type_sint };
static ffi_type *doubles[] = { &ffi_type_double, &ffi_type_double };
static ffi_type *pairs[] = { &pair_type };
static ffi_type *longs[] = {
	&ffi_type_slong, &ffi_type_slong, &ffi_type_slong, &ffi_type_slong,
	&ffi_type_slong, &ffi_type_slong, &ffi_type_slong, &ffi_type_slong,
	&ffi_type_slong, &ffi_type_slong,
};
static ffi_type *mixed[] = {
	&ffi_type_schar, &ffi_type_float, &ffi_type_pointer, &ffi_type_sshort,
};

static void on_ints(ffi_cif *cif, void *result, void **args, void *data)
{
	(void)cif;
	*(ffi_sarg *)result = (int)((long)data + *(int *)args[0] - *(int *)args[1]);
}

static void on_doubles(ffi_cif *cif, void *result, void **args, void *data)
{
	(void)cif;
	*(double *)result = (long)data + *(double *)args[0] / *(double *)args[1];
}

static void on_pairs(ffi_cif *cif, void *result, void **args, void *data)
{
	struct pair *pair = args[0];

	(void)cif;
	*(struct pair *)result = (struct pair){ pair->a - 1, pair->b + (long)data };
}

static void on_longs(ffi_cif *cif, void *result, void **args, void *data)
{
	long sum = (long)data;
	int n;

	(void)cif;
	for (n = 0; n < 10; n++)
		sum += (n + 1) * *(long *)args[n];
	*(long *)result = sum;
}

static void on_mixed(ffi_cif *cif, void *result, void **args, void *data)
{
	(void)cif;
	/* The answer does not fit into a float. */
	**(long **)args[2] = (long)data;
	*(float *)result = *(signed char *)args[0] + *(float *)args[1] + *(short *)args[3];
}

static const struct {
	ffi_abi abi;
	unsigned int count;
	ffi_type *result;
	ffi_type **args;
	void (*handler)(ffi_cif *cif, void *result, void **args, void *data);
} kinds[KINDS] = {
	[INTS] = { FFI_DEFAULT_ABI, 2, &ffi_type_sint, ints, on_ints },
	[DOUBLES] = { FFI_DEFAULT_ABI, 2, &ffi_type_double, doubles, on_doubles },
	[PAIRS] = { FFI_DEFAULT_ABI, 1, &pair_type, pairs, on_pairs },
	[LONGS] = { FFI_DEFAULT_ABI, 10, &ffi_type_slong, longs, on_longs },
	[MIXED] = { FFI_DEFAULT_ABI, 4, &ffi_type_float, mixed, on_mixed },
	[OTHER] = { OTHER_ABI, 2, &ffi_type_sint, ints, on_ints },
};

static ffi_cif cifs[KINDS];

const void *library(void)
{
	return ffi_closure_alloc;
}

int make(struct closure *closure, long answer)
{
	int kind = (answer / 64) % KINDS;

	if (!cifs[kind].nargs &&
	    ffi_prep_cif(&cifs[kind], kinds[kind].abi, kinds[kind].count,
			 kinds[kind].result, kinds[kind].args) != FFI_OK)
		return -1;
	closure->a = ffi_closure_alloc(sizeof(ffi_closure), &closure->b);
	if (!closure->a)
		return -1;
	if (ffi_prep_closure_loc(closure->a, &cifs[kind], kinds[kind].handler,
				 (void *)answer, closure->b) == FFI_OK)
		return 0;
	ffi_closure_free(closure->a);
	return -1;
}

int right(const struct closure *closure, long answer)
{
	void *code = closure->b;
	struct pair pair;
	long told = 0;

	switch ((answer / 64) % KINDS) {
	case INTS:
		return ((int (*)(int, int))code)(50, 8) == (int)answer + 42;
	case DOUBLES:
		return ((double (*)(double, double))code)(3, 2) == answer + 1.5;
	case PAIRS:
		pair = ((struct pair (*)(struct pair))code)((struct pair){ 4, 0.5 });
		return pair.a == 3 && pair.b == answer + 0.5;
	case LONGS:
		return ((long (*)(long, long, long, long, long, long, long, long,
				  long, long))code)
			(1, 2, 3, 4, 5, 6, 7, 8, 9, 10) == answer + 385;
	case MIXED:
		return ((float (*)(signed char, float, long *, short))code)
			(-3, 0.25, &told, -100) == -102.75 && told == answer;
	default:
		/* Not the numbers of INTS: GCC 12 takes the two calls for one. */
		return ((int (OTHER_CALL *)(int, int))code)(60, 18) == (int)answer + 42;
	}
}

void drop(struct closure *closure)
{
	ffi_closure_free(closure->a);
}
