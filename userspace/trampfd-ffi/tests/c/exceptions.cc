// SPDX-License-Identifier: MIT OR Apache-2.0
/* Exceptions and longjmp leave closures through their entries, and raw ones through a translator. */
#include "check.h"

#include <setjmp.h>

struct thrown {
	int value;
};

struct cleaned {
	int *count;
	~cleaned()
	{
		++*count;
	}
};

static void throws(ffi_cif *, void *, void **args, void *)
{
	throw thrown{ *(int *)args[0] };
}

static void throws_raw(ffi_cif *cif, void *, ffi_raw *raw, void *)
{
	throw thrown{ (int)raw[cif->nargs - 1].sint };
}

static jmp_buf back;

static void jumps(ffi_cif *, void *, void **args, void *)
{
	longjmp(back, *(int *)args[0]);
}

struct pair {
	double a;
	long b;
};
typedef int (*int_fn)(int, double);
typedef pair (*pair_fn)(int, double);

static ffi_type *elements[] = { &ffi_type_double, &ffi_type_slong, NULL };
static ffi_type pair_type = { 0, 0, FFI_TYPE_STRUCT, elements };
static ffi_type *args[] = { &ffi_type_sint32, &ffi_type_double };

static void *prepared(ffi_type *result, void (*fun)(ffi_cif *, void *, void **, void *))
{
	ffi_cif *cif = new ffi_cif;
	void *code;
	ffi_closure *c = (ffi_closure *)ffi_closure_alloc(sizeof(*c), &code);

	CHECK(ffi_prep_cif(cif, FFI_DEFAULT_ABI, 2, result, args) == FFI_OK);
	CHECK(ffi_prep_closure_loc(c, cif, fun, NULL, code) == FFI_OK);
	return code;
}

static void through_entries(void)
{
	int_fn f = (int_fn)prepared(&ffi_type_sint32, throws);
	pair_fn g = (pair_fn)prepared(&pair_type, throws);
	int caught = 0, count = 0, i;

	for (i = 0; i < 1000; i++) {
		try {
			cleaned cleaned = { &count };
			f(i, 0.5);
		} catch (thrown &t) {
			caught += t.value == i;
		}
		try {
			cleaned cleaned = { &count };
			g(i, 0.5);
		} catch (thrown &t) {
			caught += t.value == i;
		}
	}
	CHECK(caught == 2000 && count == 2000);
}

static void through_raw(int nargs)
{
	ffi_type *ints[100];
	int values[100], count = 0, caught = 0, i;
	void *pointers[100];
	ffi_cif cif;
	void *code;
	ffi_raw_closure *c = (ffi_raw_closure *)ffi_closure_alloc(sizeof(*c), &code);

	for (i = 0; i < nargs; i++) {
		ints[i] = &ffi_type_sint32;
		values[i] = i;
		pointers[i] = &values[i];
	}
	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, nargs, &ffi_type_void, ints) == FFI_OK);
	CHECK(ffi_prep_raw_closure_loc(c, &cif, throws_raw, NULL, code) == FFI_OK);
	for (i = 0; i < 1000; i++) {
		try {
			cleaned cleaned = { &count };
			ffi_call(&cif, (void (*)())code, NULL, pointers);
		} catch (thrown &t) {
			caught += t.value == nargs - 1;
		}
	}
	CHECK(caught == 1000 && count == 1000);
}

static void through_the_translator(void)
{
	through_raw(3);
	through_raw(100);
}

static void longjmp_out(void)
{
	int_fn f = (int_fn)prepared(&ffi_type_sint32, jumps);
	volatile int i;

	for (i = 1; i < 1000; i++) {
		int got = setjmp(back);

		if (!got)
			f(i, 0.5);
		CHECK(got == i);
	}
}

static const struct test tests[] = {
	TEST(through_entries),
	TEST(through_the_translator),
	TEST(longjmp_out),
};
MAIN(tests)
