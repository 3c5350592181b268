// SPDX-License-Identifier: MIT OR Apache-2.0
/* Raw closures, libffi's and Java's: no test of libffi's looks at them. */
#include "check.h"

#include <complex.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

struct pair {
	int a;
	double b;
};
static ffi_type *pair_elements[] = { &ffi_type_sint32, &ffi_type_double, NULL };
static ffi_type pair_type = { 0, 0, FFI_TYPE_STRUCT, pair_elements };

static ffi_raw_closure *raw_closure(ffi_cif *cif,
				    void (*fun)(ffi_cif *, void *, ffi_raw *,
						void *),
				    void *data, void **code)
{
	ffi_raw_closure *c = ffi_closure_alloc(sizeof(*c), code);

	CHECK(c);
	CHECK(ffi_prep_raw_closure_loc(c, cif, fun, data, *code) == FFI_OK);
	CHECK(c->fun == fun && c->user_data == data);
	return c;
}

static void integers(ffi_cif *cif, void *ret, ffi_raw *raw, void *data)
{
	CHECK(cif->nargs == 8);
	CHECK(raw[0].sint == -1);
	CHECK(raw[1].uint == 0xff);
	CHECK(raw[2].sint == -2);
	CHECK(raw[3].uint == 0xfffe);
	CHECK(raw[4].sint == -3);
	CHECK(raw[5].uint == 0xfffffffd);
	CHECK(raw[6].sint == INT64_MIN);
	CHECK(raw[7].uint == UINT64_MAX);
	*(ffi_sarg *)ret = *(int *)data;
}

static void raw_integers(void)
{
	ffi_type *args[] = { &ffi_type_sint8,  &ffi_type_uint8,
			     &ffi_type_sint16, &ffi_type_uint16,
			     &ffi_type_sint32, &ffi_type_uint32,
			     &ffi_type_sint64, &ffi_type_uint64 };
	int k = -77;
	ffi_cif cif;
	void *code;
	ffi_raw_closure *c;

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 8, &ffi_type_sint16, args) ==
	      FFI_OK);
	c = raw_closure(&cif, integers, &k, &code);
	CHECK(CODE(short (*)(signed char, unsigned char, short, unsigned short,
			     int, unsigned int, long, unsigned long),
		   code)(-1, 0xff, -2, 0xfffe, -3, 0xfffffffd, INT64_MIN,
			 UINT64_MAX) == -77);
	ffi_closure_free(c);
}

static void mixed(ffi_cif *cif, void *ret, ffi_raw *raw, void *data)
{
	struct pair *pair = raw[3].ptr;
	double d;
	long double l;

	(void)data;
	CHECK(raw[0].flt == 1.5f);
	memcpy(&d, &raw[1], sizeof(d));
	CHECK(d == 2.5);
	CHECK(raw[2].ptr == cif);
	CHECK(pair->a == 4 && pair->b == 5.5);
	CHECK(*(double complex *)raw[4].ptr == 6 + 7 * I);
	memcpy(&l, &raw[5], sizeof(l));
	CHECK(l == 8.25L);
	CHECK(raw[7].sint == 9);
	*(double *)ret = d * 2;
}

static void raw_mixed(void)
{
	ffi_type *args[] = { &ffi_type_float,	       &ffi_type_double,
			     &ffi_type_pointer,	       &pair_type,
			     &ffi_type_complex_double, &ffi_type_longdouble,
			     &ffi_type_sint32 };
	struct pair pair = { 4, 5.5 };
	ffi_cif cif;
	void *code;
	ffi_raw_closure *c;

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 7, &ffi_type_double, args) ==
	      FFI_OK);
	c = raw_closure(&cif, mixed, NULL, &code);
	CHECK(CODE(double (*)(float, double, void *, struct pair,
			      double complex, long double, int),
		   code)(1.5f, 2.5, &cif, pair, 6 + 7 * I, 8.25L, 9) == 5.0);
	ffi_closure_free(c);
}

static void returns_pair(ffi_cif *cif, void *ret, ffi_raw *raw, void *data)
{
	struct pair *pair = ret;

	(void)cif;
	(void)data;
	pair->a = (int)raw[0].sint;
	pair->b = pair->a / 2.0;
}

static void raw_structure_result(void)
{
	ffi_type *args[] = { &ffi_type_sint32 };
	struct pair pair;
	ffi_cif cif;
	void *code;
	ffi_raw_closure *c;

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 1, &pair_type, args) ==
	      FFI_OK);
	c = raw_closure(&cif, returns_pair, NULL, &code);
	pair = CODE(struct pair(*)(int), code)(-9);
	CHECK(pair.a == -9 && pair.b == -4.5);
	ffi_closure_free(c);
}

enum { MANY = 100 };

static void sums(ffi_cif *cif, void *ret, ffi_raw *raw, void *data)
{
	long sum = 0;
	int i;

	(void)data;
	for (i = 0; i < (int)cif->nargs; i++)
		sum += raw[i].sint * i;
	*(ffi_sarg *)ret = sum;
}

/* More words than are kept on the stack. */
static void raw_many(void)
{
	ffi_type *args[MANY];
	void *values[MANY];
	long numbers[MANY], want = 0;
	ffi_sarg got = 0;
	ffi_cif cif;
	void *code;
	ffi_raw_closure *c;
	int i;

	for (i = 0; i < MANY; i++) {
		args[i] = &ffi_type_slong;
		numbers[i] = 1000 - 3 * i;
		values[i] = &numbers[i];
		want += numbers[i] * i;
	}
	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, MANY, &ffi_type_slong,
			   args) == FFI_OK);
	c = raw_closure(&cif, sums, NULL, &code);
	ffi_call(&cif, CODE(void (*)(void), code), &got, values);
	CHECK(got == want);
	ffi_closure_free(c);
}

static void raw_without_location(void)
{
	ffi_type *args[] = { &ffi_type_sint32 };
	struct pair pair;
	ffi_cif cif;
	void *code;
	ffi_raw_closure *c = ffi_closure_alloc(sizeof(*c), &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 1, &pair_type, args) ==
	      FFI_OK);
	CHECK(ffi_prep_raw_closure(c, &cif, returns_pair, NULL) == FFI_OK);
	pair = CODE(struct pair(*)(int), code)(3);
	CHECK(pair.a == 3 && pair.b == 1.5);
	ffi_closure_free(c);
}

static void __attribute__((ms_abi)) ms_pair(void *code, struct pair *pair)
{
	*pair = CODE(struct pair(__attribute__((ms_abi)) *)(int), code)(6);
}

static void raw_foreign_convention(void)
{
	ffi_type *args[] = { &ffi_type_sint32 };
	struct pair pair;
	ffi_cif cif;
	void *code;
	ffi_raw_closure *c;

	CHECK(ffi_prep_cif(&cif, FFI_GNUW64, 1, &pair_type, args) == FFI_OK);
	c = raw_closure(&cif, returns_pair, NULL, &code);
	ms_pair(code, &pair);
	CHECK(pair.a == 6 && pair.b == 3.0);
	ffi_closure_free(c);
}

/* What ffi_raw_call packs is what a raw closure sees. */
static void raw_there_and_back(void)
{
	ffi_type *args[] = { &ffi_type_float,	       &ffi_type_double,
			     &ffi_type_pointer,	       &pair_type,
			     &ffi_type_complex_double, &ffi_type_longdouble,
			     &ffi_type_sint32 };
	float f = 1.5f;
	double d = 2.5, result = 0;
	struct pair pair = { 4, 5.5 };
	double complex z = 6 + 7 * I;
	long double l = 8.25L;
	int n = 9;
	ffi_cif cif;
	void *p = &cif, *code;
	void *values[] = { &f, &d, &p, &pair, &z, &l, &n };
	ffi_raw words[16];
	ffi_raw_closure *c;

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 7, &ffi_type_double, args) ==
	      FFI_OK);
	c = raw_closure(&cif, mixed, NULL, &code);
	memset(words, 0, sizeof(words));
	ffi_ptrarray_to_raw(&cif, values, words);
	ffi_raw_call(&cif, CODE(void (*)(void), code), &result, words);
	CHECK(result == 5.0);
	ffi_closure_free(c);
}

static void java(ffi_cif *cif, void *ret, ffi_java_raw *raw, void *data)
{
	double d;

	CHECK(raw[0].sint == -5);
	CHECK(raw[1].sint == INT64_MAX); /* and raw[2] is unused */
	CHECK(raw[3].flt == 0.25f);
	memcpy(&d, &raw[4], sizeof(d)); /* and raw[5] is unused */
	CHECK(d == -0.5);
	CHECK(raw[6].ptr == cif);
	CHECK(raw[7].uint == 200);
	CHECK(raw[8].sint == -300);
	*(ffi_sarg *)ret = *(long *)data;
}

static ffi_type *java_args[] = { &ffi_type_sint32, &ffi_type_sint64,
				 &ffi_type_float,  &ffi_type_double,
				 &ffi_type_pointer, &ffi_type_uint8,
				 &ffi_type_sint16 };
typedef long (*java_fn)(int, long, float, double, void *, unsigned char, short);

static void java_words(void)
{
	long k = 1L << 40;
	ffi_cif cif;
	void *code;
	ffi_java_raw_closure *c = ffi_closure_alloc(sizeof(*c), &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 7, &ffi_type_sint64,
			   java_args) == FFI_OK);
	CHECK(ffi_java_raw_size(&cif) == 9 * sizeof(ffi_java_raw));
	CHECK(ffi_prep_java_raw_closure_loc(c, &cif, java, &k, code) == FFI_OK);
	CHECK(CODE(java_fn, code)(-5, INT64_MAX, 0.25f, -0.5, &cif, 200,
				  -300) == k);
	k = -1;
	CHECK(ffi_prep_java_raw_closure(c, &cif, java, &k) == FFI_OK);
	CHECK(CODE(java_fn, code)(-5, INT64_MAX, 0.25f, -0.5, &cif, 200,
				  -300) == -1);
	ffi_closure_free(c);
}

static void java_there_and_back(void)
{
	int i = -5;
	long l = INT64_MAX, k = 12345;
	float f = 0.25f;
	double d = -0.5;
	ffi_sarg got = 0;
	ffi_cif cif;
	void *p = &cif, *code;
	unsigned char u = 200;
	short s = -300;
	void *values[] = { &i, &l, &f, &d, &p, &u, &s };
	ffi_java_raw words[16];
	ffi_java_raw_closure *c = ffi_closure_alloc(sizeof(*c), &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 7, &ffi_type_sint64,
			   java_args) == FFI_OK);
	CHECK(ffi_prep_java_raw_closure_loc(c, &cif, java, &k, code) == FFI_OK);
	memset(words, 0xaa, sizeof(words));
	ffi_java_ptrarray_to_raw(&cif, values, words);
	ffi_java_raw_call(&cif, CODE(void (*)(void), code), &got, words);
	CHECK(got == 12345);
	ffi_closure_free(c);
}

/* libffi ends the process at the first call. */
static void java_has_no_structures(void)
{
	ffi_type *wrong[] = { &pair_type, &ffi_type_complex_float,
			      &ffi_type_longdouble };
	size_t i;

	for (i = 0; i < 3; i++) {
		ffi_type *args[] = { &ffi_type_sint32, wrong[i] };
		ffi_cif cif;
		void *code;
		ffi_java_raw_closure *c = ffi_closure_alloc(sizeof(*c), &code);

		CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 2, &ffi_type_void,
				   args) == FFI_OK);
		CHECK(ffi_prep_java_raw_closure_loc(c, &cif, java, NULL,
						    code) == FFI_BAD_ARGTYPE);
		CHECK(ffi_prep_java_raw_closure(c, &cif, java, NULL) ==
		      FFI_BAD_ARGTYPE);
		ffi_closure_free(c);
	}
}

static const struct test tests[] = {
	TEST(raw_integers),
	TEST(raw_mixed),
	TEST(raw_structure_result),
	TEST(raw_many),
	TEST(raw_without_location),
	TEST(raw_foreign_convention),
	TEST(raw_there_and_back),
	TEST(java_words),
	TEST(java_there_and_back),
	TEST(java_has_no_structures),
};
MAIN(tests)
