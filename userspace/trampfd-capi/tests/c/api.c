// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The C interface, through the library as a program links it. With MACHINE, for test machines:
 * static, and the closures must come from the kernel service.
 */
#define _GNU_SOURCE
#include <complex.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <trampfd.h>

#include "check.h"
#if defined(__x86_64__)
#include "arch/x86_64.h"
#endif

long nested_add(long);
long chain_value(long);

/* ---- what a program is compiled with ----------------------------------- */

/* A compiled program relies on every one of these. */
_Static_assert(TRAMPFD_VERSION == 0x000100, "");
_Static_assert(sizeof(trampfd_type) == sizeof(void *), "");
_Static_assert(sizeof(trampfd_function) == sizeof(void *), "");
_Static_assert(TRAMPFD_OK == 0 && TRAMPFD_ERROR_INVALID == 1 &&
	       TRAMPFD_ERROR_NOT_TEXT == 2 && TRAMPFD_ERROR_REGISTER == 3 &&
	       TRAMPFD_ERROR_NO_CLOSURE == 4 && TRAMPFD_ERROR_SEALED == 5 &&
	       TRAMPFD_ERROR_UNAVAILABLE == 6 && TRAMPFD_ERROR_GROWTH == 7 &&
	       TRAMPFD_ERROR_UNSUPPORTED == 8 && TRAMPFD_ERROR_NO_MEMORY == 9 &&
	       TRAMPFD_ERROR_QUOTA == 10 && TRAMPFD_ERROR_SERVICE == 11 &&
	       TRAMPFD_ERROR_ZERO_SIZED == 12 && TRAMPFD_ERROR_VOID == 13 &&
	       TRAMPFD_ERROR_ARRAY == 14 && TRAMPFD_ERROR_ALIGNMENT == 15 &&
	       TRAMPFD_ERROR_TOO_LARGE == 16 && TRAMPFD_ERROR_TOO_DEEP == 17 &&
	       TRAMPFD_ERROR_OTHER == 18, "");
_Static_assert(TRAMPFD_ANY == 0 && TRAMPFD_KERNEL == 1 && TRAMPFD_TEXT == 2, "");
_Static_assert(TRAMPFD_ARG(0) == 256 && TRAMPFD_ARG(3) == 259 && TRAMPFD_CHAIN == 511, "");

#ifndef MACHINE
static void (*const functions[])(void) = {
#define F(name) (void (*)(void))trampfd_##name
	F(version), F(strerror), F(last_error), F(detail), F(support), F(default_backend),
	F(seal), F(register), F(new), F(new_on), F(struct), F(union), F(array), F(type_free),
	F(sizeof), F(alignof), F(offsetof), F(signature_new), F(signature_free), F(dyn_new),
	F(dyn_new_on), F(backend), F(free),
#undef F
};

static void abi(void)
{
	static const char *const names[] = {
		"version", "strerror", "last_error", "detail", "support", "default_backend",
		"seal", "register", "new", "new_on", "struct", "union", "array", "type_free",
		"sizeof", "alignof", "offsetof", "signature_new", "signature_free", "dyn_new",
		"dyn_new_on", "backend", "free",
	};
	static const struct {
		trampfd_type type;
		size_t size, align;
	} types[] = {
#define T(name, type) { name, sizeof(type), _Alignof(type) }
		T(TRAMPFD_BOOL, _Bool), T(TRAMPFD_I8, int8_t), T(TRAMPFD_U8, uint8_t),
		T(TRAMPFD_I16, int16_t), T(TRAMPFD_U16, uint16_t), T(TRAMPFD_I32, int32_t),
		T(TRAMPFD_U32, uint32_t), T(TRAMPFD_I64, int64_t), T(TRAMPFD_U64, uint64_t),
		T(TRAMPFD_I128, __int128), T(TRAMPFD_U128, unsigned __int128),
		T(TRAMPFD_FLOAT, float), T(TRAMPFD_DOUBLE, double),
		T(TRAMPFD_LONG_DOUBLE, long double), T(TRAMPFD_COMPLEX_FLOAT, float complex),
		T(TRAMPFD_COMPLEX_DOUBLE, double complex),
		T(TRAMPFD_COMPLEX_LONG_DOUBLE, long double complex),
		T(TRAMPFD_POINTER, void *), T(TRAMPFD_CHAR, char), T(TRAMPFD_SHORT, short),
		T(TRAMPFD_USHORT, unsigned short), T(TRAMPFD_INT, int),
		T(TRAMPFD_UINT, unsigned int), T(TRAMPFD_LONG, long),
		T(TRAMPFD_ULONG, unsigned long), T(TRAMPFD_LONG_LONG, long long),
		T(TRAMPFD_ULONG_LONG, unsigned long long), T(TRAMPFD_SIZE, size_t),
#undef T
	};
	void *library = dlopen("libtrampfd.so.0", RTLD_NOLOAD | RTLD_NOW);

	CHECK(library, "%s", dlerror());
	for (size_t n = 0; n < sizeof(names) / sizeof(*names); n++) {
		char name[64];

		snprintf(name, sizeof(name), "trampfd_%s", names[n]);
		CHECK(dlvsym(library, name, "TRAMPFD_0.1") == (void *)functions[n], "%s", name);
		CHECK(!dlvsym(library, name, "GCC_14.0.0"), "%s", name);
	}
	CHECK(dlvsym(library, "__gcc_nested_func_ptr_created", "GCC_14.0.0"));
	CHECK(dlvsym(library, "__gcc_nested_func_ptr_deleted", "GCC_14.0.0"));
	CHECK(dlvsym(library, "_FortranATrampolineInit", "TRAMPFD_0.1"));
	/* Nothing of Rust's is there. */
	CHECK(!dlsym(library, "rust_eh_personality") && !dlsym(library, "__rust_alloc"));
	for (size_t n = 0; n < sizeof(types) / sizeof(*types); n++) {
		CHECK(trampfd_sizeof(types[n].type) == types[n].size, "type %zu", n);
		CHECK(trampfd_alignof(types[n].type) == types[n].align, "type %zu", n);
	}
	CHECK(trampfd_sizeof(TRAMPFD_VOID) == 0 && trampfd_last_error() == TRAMPFD_OK);
	CHECK(trampfd_version() == TRAMPFD_VERSION);
}

#endif

/* ---- closures of a register -------------------------------------------- */

static long six(long a, long b, long c, long d, long e, long f)
{
	return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f;
}

static void registers(void)
{
	static const int32_t dwarf[] = ARG_REGISTERS;
	const int count = sizeof(dwarf) / sizeof(*dwarf);
	long power = 1;

	for (int n = 0; n < count; n++, power *= 10) {
		trampfd_function f = trampfd_new((trampfd_function)six, (void *)7, TRAMPFD_ARG(n));
		long want = 111111 + 6 * power;

		CHECK(f, "%s", trampfd_detail());
		CHECK(((long (*)(long, long, long, long, long, long))f)(1, 1, 1, 1, 1, 1) == want);
		CHECK(trampfd_backend(f) == trampfd_default_backend());
		CHECK(trampfd_free(f) == TRAMPFD_OK);
		CHECK(trampfd_register(TRAMPFD_ARG(n)) == dwarf[n]);
		CHECK(trampfd_register(dwarf[n]) == dwarf[n]);
		f = trampfd_new((trampfd_function)six, (void *)7, dwarf[n]);
		CHECK(f && ((long (*)(long, long, long, long, long, long))f)(1, 1, 1, 1, 1, 1) == want);
		trampfd_free(f);
	}
	CHECK(trampfd_register(TRAMPFD_ARG(count)) == -1);
	CHECK(trampfd_register(TRAMPFD_CHAIN) == CHAIN_REGISTER);
	CHECK(trampfd_register(-1) == -1 && trampfd_register(65536 + CHAIN_REGISTER) == -1);
}

static void static_chain(void)
{
	long frame = 40;
	trampfd_function f = trampfd_new((trampfd_function)nested_add, &frame, TRAMPFD_CHAIN);
	trampfd_function g = trampfd_new((trampfd_function)chain_value, NULL, TRAMPFD_CHAIN);

	CHECK(((long (*)(long))f)(2) == 42);
	CHECK(((long (*)(long))g)(2) == 0);
	CHECK(!trampfd_free(f) && !trampfd_free(g));
}

struct order {
	int sign;
	int calls;
};

static int by_order(const void *a, const void *b, void *order)
{
	struct order *o = order;

	o->calls++;
	return o->sign * (*(const int *)a - *(const int *)b);
}

static void sorts(void)
{
	int numbers[] = { 3, 1, 2 };
	struct order order = { -1, 0 };
	trampfd_function f = trampfd_new((trampfd_function)by_order, &order, TRAMPFD_ARG(2));

	qsort(numbers, 3, sizeof(int), (int (*)(const void *, const void *))f);
	CHECK(numbers[0] == 3 && numbers[1] == 2 && numbers[2] == 1 && order.calls);
	CHECK(!trampfd_free(f));
}

static long is_data(void *data)
{
	return (long)data;
}

/* All at once, freed in another order than made. */
static void many(void)
{
	enum { COUNT = 30000 };
	static trampfd_function all[COUNT];
	long wx;

#ifdef MACHINE
	/* Some of them are older than Linux 6.3. */
	CHECK(!prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0) || errno == EINVAL);
#else
	CHECK(!prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0), "this kernel has no PR_SET_MDWE");
#endif
	for (int round = 0; round < 3; round++) {
		for (long n = 0; n < COUNT; n++) {
			all[n] = trampfd_new((trampfd_function)is_data, (void *)n, TRAMPFD_ARG(0));
			CHECK(all[n], "%s", trampfd_detail());
		}
		for (long n = 0; n < COUNT; n++)
			CHECK(((long (*)(void))all[n])() == n);
		for (long n = 0; n < COUNT; n++)
			CHECK(!trampfd_free(all[n * 7919 % COUNT]));
	}
	mappings(&wx);
	CHECK(wx == 0);
}

/* ---- closures of a signature ------------------------------------------- */

#define ARG(type, n) (*(type *)args[n])

static void add_ints(const trampfd_signature *signature, void *result, void *const *args,
		     void *data)
{
	CHECK(signature);
	*(int *)result = ARG(int, 0) + ARG(int, 1) + *(int *)data;
}

static void signatures_live_on(void)
{
	trampfd_type types[] = { TRAMPFD_INT, TRAMPFD_INT };
	trampfd_signature *signature = trampfd_signature_new(types, 2, TRAMPFD_INT);
	trampfd_function f[100];
	int more = 5;

	for (int n = 0; n < 100; n++)
		f[n] = trampfd_dyn_new(signature, add_ints, &more);
	trampfd_signature_free(signature);
	for (int n = 0; n < 100; n++) {
		CHECK(((int (*)(int, int))f[n])(-20, 10) == -5);
		CHECK(trampfd_backend(f[n]) == trampfd_default_backend());
		CHECK(trampfd_free(f[n]) == TRAMPFD_OK);
	}
}

struct small {
	char tag;
	float f;
};

struct mixed {
	double d;
	int i;
};

struct large {
	long a[5];
	char c;
};

union either {
	double d;
	struct {
		short s[3];
	} s;
};

static struct {
	int8_t i8;
	uint16_t u16;
	_Bool yes;
	float f;
	double d;
	long double ld;
	__int128 wide;
	double complex z;
	struct small small;
	struct mixed mixed;
	struct large large;
	union either either;
	const char *text;
	float complex zf;
} given;

static void keep_all(const trampfd_signature *signature, void *result, void *const *args,
		     void *data)
{
	(void)signature;
	CHECK(data == &given);
	given.i8 = ARG(int8_t, 0);
	given.u16 = ARG(uint16_t, 1);
	given.yes = ARG(_Bool, 2);
	given.f = ARG(float, 3);
	given.d = ARG(double, 4);
	given.ld = ARG(long double, 5);
	given.wide = ARG(__int128, 6);
	given.z = ARG(double complex, 7);
	given.small = ARG(struct small, 8);
	given.mixed = ARG(struct mixed, 9);
	given.large = ARG(struct large, 10);
	given.either = ARG(union either, 11);
	given.text = ARG(const char *, 12);
	given.zf = ARG(float complex, 13);
	*(struct large *)result = (struct large){ { 1, 2, 3, 4, 5 }, 'r' };
}

static void every_type(void)
{
	trampfd_type shorts = trampfd_array(TRAMPFD_SHORT, 3);
	trampfd_type three = trampfd_struct(&shorts, 1);
	trampfd_type longs = trampfd_array(TRAMPFD_LONG, 5);
	trampfd_type small = trampfd_struct((trampfd_type[]){ TRAMPFD_CHAR, TRAMPFD_FLOAT }, 2);
	trampfd_type mixed = trampfd_struct((trampfd_type[]){ TRAMPFD_DOUBLE, TRAMPFD_INT }, 2);
	trampfd_type large = trampfd_struct((trampfd_type[]){ longs, TRAMPFD_CHAR }, 2);
	trampfd_type either = trampfd_union((trampfd_type[]){ TRAMPFD_DOUBLE, three }, 2);
	trampfd_type types[] = {
		TRAMPFD_I8, TRAMPFD_U16, TRAMPFD_BOOL, TRAMPFD_FLOAT, TRAMPFD_DOUBLE,
		TRAMPFD_LONG_DOUBLE, TRAMPFD_I128, TRAMPFD_COMPLEX_DOUBLE, small, mixed, large,
		either, TRAMPFD_POINTER, TRAMPFD_COMPLEX_FLOAT,
	};
	trampfd_signature *signature;
	trampfd_function f;
	struct large back;

	CHECK(trampfd_sizeof(large) == sizeof(struct large) &&
	      trampfd_alignof(large) == _Alignof(struct large) &&
	      trampfd_offsetof(large, 1) == offsetof(struct large, c) &&
	      trampfd_offsetof(longs, 4) == 32);
	CHECK(trampfd_sizeof(either) == sizeof(union either) && trampfd_offsetof(either, 1) == 0);
	CHECK(trampfd_offsetof(small, 1) == offsetof(struct small, f));
	signature = trampfd_signature_new(types, sizeof(types) / sizeof(*types), large);
	CHECK(signature, "%s", trampfd_detail());
	trampfd_type_free(shorts);
	trampfd_type_free(three);
	trampfd_type_free(longs);
	trampfd_type_free(small);
	trampfd_type_free(mixed);
	trampfd_type_free(large);
	trampfd_type_free(either);
	f = trampfd_dyn_new(signature, keep_all, &given);
	CHECK(f, "%s", trampfd_detail());
	back = ((struct large (*)(int8_t, uint16_t, _Bool, float, double, long double, __int128,
				  double complex, struct small, struct mixed, struct large,
				  union either, const char *, float complex))f)(
		-3, 65535, 1, 1.5f, 2.5, 3.5L, -7 * ((__int128)1 << 64) + 9, 1 - 2 * I,
		(struct small){ 's', 4.5f }, (struct mixed){ 5.5, -6 },
		(struct large){ { 9, 8, 7, 6, 5 }, 'l' }, (union either){ .d = 7.5 }, "text",
		3 + 4 * I);
	CHECK(back.a[0] == 1 && back.a[4] == 5 && back.c == 'r');
	CHECK(given.i8 == -3 && given.u16 == 65535 && given.yes == 1);
	CHECK(given.f == 1.5f && given.d == 2.5 && given.ld == 3.5L);
	CHECK(given.wide == -7 * ((__int128)1 << 64) + 9 && given.z == 1 - 2 * I);
	CHECK(given.small.tag == 's' && given.small.f == 4.5f);
	CHECK(given.mixed.d == 5.5 && given.mixed.i == -6);
	CHECK(given.large.a[0] == 9 && given.large.a[4] == 5 && given.large.c == 'l');
	CHECK(given.either.d == 7.5 && !strcmp(given.text, "text") && given.zf == 3 + 4 * I);
	trampfd_signature_free(signature);
	CHECK(!trampfd_free(f));
}

/* The handler writes as many bytes as the type has. */
static void minus_one(const trampfd_signature *signature, void *result, void *const *args,
		      void *data)
{
	(void)signature;
	(void)args;
	memset(result, 0xff, (size_t)data);
}

static void narrow_results(void)
{
	static const trampfd_type types[] = { TRAMPFD_I8, TRAMPFD_U8, TRAMPFD_I16, TRAMPFD_U16,
					      TRAMPFD_I32, TRAMPFD_U32, TRAMPFD_I64 };
	static const long want[] = { -1, 0xff, -1, 0xffff, -1, 0xffffffff, -1 };

	for (int n = 0; n < 7; n++) {
		trampfd_signature *s = trampfd_signature_new(NULL, 0, types[n]);
		trampfd_function f;

		f = trampfd_dyn_new(s, minus_one, (void *)trampfd_sizeof(types[n]));
		switch (n) {
		case 0: CHECK(((int8_t (*)(void))f)() == want[n]); break;
		case 1: CHECK(((uint8_t (*)(void))f)() == want[n]); break;
		case 2: CHECK(((int16_t (*)(void))f)() == want[n]); break;
		case 3: CHECK(((uint16_t (*)(void))f)() == want[n]); break;
		case 4: CHECK(((int32_t (*)(void))f)() == want[n]); break;
		case 5: CHECK(((uint32_t (*)(void))f)() == want[n]); break;
		default: CHECK(((int64_t (*)(void))f)() == want[n]);
		}
		trampfd_signature_free(s);
		CHECK(!trampfd_free(f));
	}
}

/* ---- errors ------------------------------------------------------------ */

#define FAILS(call, code) do {						\
	CHECK(!(call));							\
	CHECK(trampfd_last_error() == (code), "%d: %s", trampfd_last_error(), \
	      trampfd_detail());					\
	CHECK(*trampfd_detail());					\
} while (0)

static char writable[64] = "data";

static void errors(void)
{
	trampfd_function code = (trampfd_function)is_data;
	trampfd_signature *signature = trampfd_signature_new(NULL, 0, TRAMPFD_VOID);
	trampfd_type array = trampfd_array(TRAMPFD_INT, 4), deep = TRAMPFD_INT;
	trampfd_type huge[2] = { trampfd_array(TRAMPFD_I64, 1 << 27) };

	huge[1] = huge[0];
	CHECK(trampfd_last_error() == TRAMPFD_OK && !*trampfd_detail());
	FAILS(trampfd_new(NULL, NULL, TRAMPFD_ARG(0)), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_new_on(3, code, NULL, TRAMPFD_ARG(0)), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_new_on(-1, code, NULL, TRAMPFD_ARG(0)), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_new(code, NULL, TRAMPFD_ARG(99)), TRAMPFD_ERROR_REGISTER);
	FAILS(trampfd_new(code, NULL, TRAMPFD_ARG(-1)), TRAMPFD_ERROR_REGISTER);
	FAILS(trampfd_new(code, NULL, -1), TRAMPFD_ERROR_REGISTER);
	FAILS(trampfd_new_on(TRAMPFD_TEXT, (trampfd_function)(void *)writable, NULL,
			     TRAMPFD_ARG(0)), TRAMPFD_ERROR_NOT_TEXT);
	FAILS(trampfd_dyn_new(NULL, add_ints, NULL), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_dyn_new(signature, NULL, NULL), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_dyn_new_on(7, signature, add_ints, NULL), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_struct(NULL, 0), TRAMPFD_ERROR_ZERO_SIZED);
	FAILS(trampfd_union(NULL, 0), TRAMPFD_ERROR_ZERO_SIZED);
	FAILS(trampfd_array(TRAMPFD_INT, 0), TRAMPFD_ERROR_ZERO_SIZED);
	FAILS(trampfd_struct(NULL, 1), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_struct(&(trampfd_type){ 0 }, 1), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_struct(&(trampfd_type){ 30 }, 1), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_struct(&(trampfd_type){ 4095 }, 1), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_struct(huge, (size_t)-1 / 8), TRAMPFD_ERROR_TOO_LARGE);
	FAILS(trampfd_struct(&(trampfd_type){ TRAMPFD_VOID }, 1), TRAMPFD_ERROR_VOID);
	FAILS(trampfd_struct(huge, 2), TRAMPFD_ERROR_TOO_LARGE);
	FAILS(trampfd_array(TRAMPFD_INT, (size_t)-1), TRAMPFD_ERROR_TOO_LARGE);
	FAILS(trampfd_signature_new(&array, 1, TRAMPFD_VOID), TRAMPFD_ERROR_ARRAY);
	FAILS(trampfd_signature_new(NULL, 0, array), TRAMPFD_ERROR_ARRAY);
	FAILS(trampfd_signature_new(&(trampfd_type){ TRAMPFD_VOID }, 1, TRAMPFD_INT),
	      TRAMPFD_ERROR_VOID);
	FAILS(trampfd_signature_new(NULL, 0, 0), TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_offsetof(TRAMPFD_INT, 0) + 1, TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_offsetof(array, 4) + 1, TRAMPFD_ERROR_INVALID);
	FAILS(trampfd_sizeof(0), TRAMPFD_ERROR_INVALID);
	for (int n = 0; n < 64; n++)
		deep = trampfd_struct(&deep, 1);
	CHECK(deep);
	FAILS(trampfd_struct(&deep, 1), TRAMPFD_ERROR_TOO_DEEP);
	CHECK(trampfd_free(code) == TRAMPFD_ERROR_NO_CLOSURE);
	CHECK(trampfd_free((trampfd_function)(void *)writable) == TRAMPFD_ERROR_NO_CLOSURE);
	CHECK(trampfd_free(NULL) == TRAMPFD_OK);
	CHECK(trampfd_backend(code) == 0 && trampfd_last_error() == TRAMPFD_ERROR_NO_CLOSURE);
	CHECK(trampfd_backend(NULL) == 0 && trampfd_last_error() == TRAMPFD_ERROR_INVALID);
	trampfd_signature_free(NULL);
	trampfd_type_free(0);
	trampfd_type_free(TRAMPFD_INT);
	for (int32_t error = 0; error <= TRAMPFD_ERROR_OTHER; error++) {
		CHECK(*trampfd_strerror(error), "%d", error);
		for (int32_t other = 0; other < error; other++)
			CHECK(strcmp(trampfd_strerror(other), trampfd_strerror(error)));
	}
	CHECK(!strcmp(trampfd_strerror(-1), trampfd_strerror(TRAMPFD_ERROR_OTHER + 1)));
}

/* Static text knows what was freed. */
static void freed_twice(void)
{
	trampfd_signature *signature = trampfd_signature_new(NULL, 0, TRAMPFD_VOID);
	trampfd_function f[3];

	f[0] = trampfd_new_on(TRAMPFD_TEXT, (trampfd_function)is_data, NULL, TRAMPFD_ARG(0));
	f[1] = trampfd_new_on(TRAMPFD_TEXT, (trampfd_function)is_data, NULL, TRAMPFD_CHAIN);
	f[2] = trampfd_dyn_new_on(TRAMPFD_TEXT, signature, add_ints, NULL);
	for (int n = 0; n < 3; n++) {
		CHECK(trampfd_backend(f[n]) == TRAMPFD_TEXT);
		CHECK(trampfd_free(f[n]) == TRAMPFD_OK);
		CHECK(trampfd_free(f[n]) == TRAMPFD_ERROR_NO_CLOSURE, "kind %d", n);
		CHECK(strstr(trampfd_detail(), "0x"), "%s", trampfd_detail());
	}
	trampfd_signature_free(signature);
}

static void *has_no_error(void *arg)
{
	CHECK(trampfd_last_error() == TRAMPFD_OK && !*trampfd_detail());
	CHECK(!trampfd_sizeof(0) && trampfd_last_error() == TRAMPFD_ERROR_INVALID);
	return arg;
}

static void errors_of_threads(void)
{
	pthread_t thread;
	const char *detail;

	CHECK(!trampfd_struct(NULL, 0));
	detail = trampfd_detail();
	CHECK(!pthread_create(&thread, NULL, has_no_error, NULL));
	pthread_join(thread, NULL);
	CHECK(trampfd_last_error() == TRAMPFD_ERROR_ZERO_SIZED);
	CHECK(detail == trampfd_detail() && strstr(detail, "no bytes"), "%s", detail);
}

static void backends(void)
{
	trampfd_function f;

	CHECK(trampfd_support(TRAMPFD_ANY) == TRAMPFD_OK);
	CHECK(trampfd_support(TRAMPFD_TEXT) == TRAMPFD_OK);
	CHECK(trampfd_support(9) == TRAMPFD_ERROR_INVALID);
#ifdef MACHINE
	CHECK(trampfd_support(TRAMPFD_KERNEL) == TRAMPFD_OK, "%s", trampfd_detail());
#endif
	f = trampfd_new_on(TRAMPFD_KERNEL, (trampfd_function)six, (void *)7, TRAMPFD_ARG(0));
	if (trampfd_support(TRAMPFD_KERNEL) == TRAMPFD_OK) {
		CHECK(trampfd_default_backend() == TRAMPFD_KERNEL);
		CHECK(trampfd_backend(f) == TRAMPFD_KERNEL && !trampfd_free(f));
		return;
	}
	CHECK(trampfd_default_backend() == TRAMPFD_TEXT);
	CHECK(trampfd_last_error() == TRAMPFD_ERROR_UNAVAILABLE);
	CHECK(strstr(trampfd_detail(), "/dev/trampfd"), "%s", trampfd_detail());
	CHECK(!f && trampfd_seal() == TRAMPFD_ERROR_UNSUPPORTED);
}

#ifdef MACHINE
/* What lives goes on; nothing is made any more, and nothing changes. */
static void seals(void)
{
	trampfd_signature *signature = trampfd_signature_new(NULL, 0, TRAMPFD_VOID);
	trampfd_function f = trampfd_new((trampfd_function)is_data, (void *)7, TRAMPFD_ARG(0));

	CHECK(trampfd_backend(f) == TRAMPFD_KERNEL);
	CHECK(trampfd_seal() == TRAMPFD_OK, "%s", trampfd_detail());
	CHECK(((long (*)(void))f)() == 7);
	CHECK(!trampfd_new((trampfd_function)is_data, NULL, TRAMPFD_ARG(0)));
	CHECK(trampfd_last_error() == TRAMPFD_ERROR_SEALED, "%s", trampfd_detail());
	CHECK(!trampfd_dyn_new(signature, add_ints, NULL));
	CHECK(trampfd_last_error() == TRAMPFD_ERROR_SEALED, "%s", trampfd_detail());
	CHECK(trampfd_seal() == TRAMPFD_ERROR_SEALED);
	CHECK(((long (*)(void))f)() == 7);
	trampfd_signature_free(signature);
}
#endif

/* ---- processes and threads --------------------------------------------- */

static void forks(void)
{
	trampfd_type types[] = { TRAMPFD_INT, TRAMPFD_INT };
	trampfd_signature *signature = trampfd_signature_new(types, 2, TRAMPFD_INT);
	trampfd_function f[200], g[200];
	int numbers[200], code;
	pid_t child;

	for (int n = 0; n < 200; n++) {
		numbers[n] = n;
		f[n] = trampfd_new((trampfd_function)is_data, (void *)(long)n, TRAMPFD_ARG(0));
		g[n] = trampfd_dyn_new(signature, add_ints, &numbers[n]);
	}
	child = fork();
	if (!child) {
		/* Other closures in the same places. */
		for (int n = 0; n < 200; n++)
			CHECK(!trampfd_free(f[n]) && !trampfd_free(g[n]));
		for (int n = 0; n < 200; n++) {
			f[n] = trampfd_new((trampfd_function)is_data, (void *)-1l, TRAMPFD_ARG(0));
			g[n] = trampfd_dyn_new(signature, add_ints, &code);
			CHECK(((long (*)(void))f[n])() == -1);
		}
		_exit(0);
	}
	CHECK(waitpid(child, &code, 0) == child && code == 0, "%#x", code);
	for (int n = 0; n < 200; n++) {
		CHECK(((long (*)(void))f[n])() == n);
		CHECK(((int (*)(int, int))g[n])(1, 2) == 3 + n);
		CHECK(!trampfd_free(f[n]) && !trampfd_free(g[n]));
	}
}

static void *makes_and_frees(void *arg)
{
	trampfd_type types[] = { TRAMPFD_INT, TRAMPFD_INT };
	trampfd_signature *signature = trampfd_signature_new(types, 2, TRAMPFD_INT);
	int more = (int)(long)arg;

	for (long n = few(20000); n > 0; n--) {
		trampfd_function f = trampfd_new((trampfd_function)is_data, &more, TRAMPFD_ARG(0));
		trampfd_function g = trampfd_dyn_new(signature, add_ints, &more);

		CHECK(((void *(*)(void))f)() == &more);
		CHECK(((int (*)(int, int))g)(1, 2) == 3 + more);
		CHECK(!trampfd_free(f) && !trampfd_free(g));
	}
	trampfd_signature_free(signature);
	return NULL;
}

static void threads(void)
{
	pthread_t all[8];

	for (long n = 0; n < 8; n++)
		CHECK(!pthread_create(&all[n], NULL, makes_and_frees, (void *)n));
	for (int n = 0; n < 8; n++)
		pthread_join(all[n], NULL);
}

static void called_too_late(void)
{
	trampfd_function f = trampfd_new_on(TRAMPFD_TEXT, (trampfd_function)is_data, NULL,
					    TRAMPFD_ARG(0));
	int code;
	pid_t child;

	CHECK(!trampfd_free(f));
	child = fork();
	if (!child) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		f();
		_exit(0);
	}
	CHECK(waitpid(child, &code, 0) == child);
	CHECK(WIFSIGNALED(code) && WTERMSIG(code) == SIGILL, "status %#x", code);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
#ifdef MACHINE
		TEST(seals),
#else
		TEST(abi),
#endif
		TEST(registers),
		TEST(static_chain),
		TEST(sorts),
		TEST(many),
		TEST(signatures_live_on),
		TEST(every_type),
		TEST(narrow_results),
		TEST(errors),
		TEST(freed_twice),
		TEST(errors_of_threads),
		TEST(backends),
		TEST(forks),
		TEST(threads),
		TEST(called_too_late),
		{ NULL, NULL },
	};

	(void)chain_value;
	return run_tests(tests, argc > 1 ? argv[1] : NULL);
}
