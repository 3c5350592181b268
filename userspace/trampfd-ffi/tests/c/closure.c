// SPDX-License-Identifier: MIT OR Apache-2.0
/* What every caller of libffi's closures relies on. */
#include "check.h"

#include <pthread.h>
#include <stddef.h>

static void alloc_of_nothing(void)
{
	void *code;

	CHECK(!ffi_closure_alloc(sizeof(ffi_closure), NULL));
	ffi_closure_free(NULL);
	errno = 0;
	CHECK(!ffi_closure_alloc(SIZE_MAX - 64, &code));
	CHECK(errno == ENOMEM);
	errno = 0;
	CHECK(!ffi_closure_alloc((size_t)1 << 62, &code));
	CHECK(errno == ENOMEM);
}

/* Callers put their own fields behind the closure. */
static void sizes(void)
{
	static const size_t sizes[] = { 0,   8,	  56,	57,   64,    65,
					72,  200, 256,	4096, 65536, 1 << 20 };
	ffi_closure *closures[12];
	void *codes[12];
	int k = 7;
	size_t i, j;

	for (i = 0; i < 12; i++) {
		unsigned char *c = ffi_closure_alloc(sizes[i], &codes[i]);

		CHECK(c && !((uintptr_t)c % 16));
		for (j = sizeof(ffi_closure); j < sizes[i]; j++)
			c[j] = (unsigned char)(i + j);
		closures[i] = (ffi_closure *)c;
		CHECK(ffi_prep_closure_loc(closures[i], add_cif(), add, &k,
					   codes[i]) == FFI_OK);
	}
	for (i = 0; i < 12; i++) {
		unsigned char *c = (unsigned char *)closures[i];

		CHECK(CODE(add_fn, codes[i])(1, 2) == 10);
		for (j = sizeof(ffi_closure); j < sizes[i]; j++)
			CHECK(c[j] == (unsigned char)(i + j));
		ffi_closure_free(c);
	}
}

/* Large blocks and small ones take turns in the same places. */
static void sizes_alternate(void)
{
	int k = 1, i;

	for (i = 0; i < few(10000); i++) {
		void *code;
		size_t size = i % 3 ? 56 : 56 + i;
		ffi_closure *c = ffi_closure_alloc(size, &code);

		CHECK(c);
		if (size > sizeof(*c))
			memset(c + 1, 0xff, size - sizeof(*c));
		CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, code) ==
		      FFI_OK);
		CHECK(CODE(add_fn, code)(i, i) == 2 * i + 1);
		ffi_closure_free(c);
	}
}

static void fields_are_read_at_each_call(void)
{
	int k = 10, l = 20;
	void *code;
	ffi_closure *c = add_closure(&k, &code);
	add_fn f = CODE(add_fn, code);

	CHECK(offsetof(ffi_closure, cif) == 32);
	CHECK(offsetof(ffi_closure, fun) == 40);
	CHECK(offsetof(ffi_closure, user_data) == 48);
	CHECK(c->cif == add_cif() && c->fun == add && c->user_data == &k);
	CHECK(f(1, 2) == 13);
	c->user_data = &l;
	CHECK(f(1, 2) == 23);
	c->fun = multiply;
	CHECK(f(3, 2) == 120);
	ffi_closure_free(c);
}

struct big {
	long a[5];
};
static ffi_type *big_elements[] = { &ffi_type_slong, &ffi_type_slong,
				    &ffi_type_slong, &ffi_type_slong,
				    &ffi_type_slong, NULL };
static ffi_type big_type = { 0, 0, FFI_TYPE_STRUCT, big_elements };

static void make_big(ffi_cif *cif, void *ret, void **args, void *data)
{
	struct big *big = ret;
	int i;

	(void)cif;
	(void)data;
	for (i = 0; i < 5; i++)
		big->a[i] = (long)(*(double *)args[0] + *(float *)args[1]) + i;
}

static void prepared_again(void)
{
	ffi_type *args[] = { &ffi_type_double, &ffi_type_float };
	ffi_cif cif;
	int k = 1, i;
	void *code;
	ffi_closure *c = add_closure(&k, &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 2, &big_type, args) ==
	      FFI_OK);
	for (i = 0; i < 100; i++) {
		struct big big;

		CHECK(CODE(add_fn, code)(i, 2) == i + 3);
		CHECK(ffi_prep_closure_loc(c, &cif, make_big, NULL, code) ==
		      FFI_OK);
		big = CODE(struct big(*)(double, float), code)(i, 0.5f);
		CHECK(big.a[0] == i && big.a[4] == i + 4);
		CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, code) ==
		      FFI_OK);
	}
	ffi_closure_free(c);
}

/* libffi looks at the closure only, wherever its caller thinks that the code is. */
static void code_address_does_not_matter(void)
{
	int k = 4;
	void *code;
	ffi_closure *c = ffi_closure_alloc(sizeof(*c), &code);

	CHECK(c && (void *)c != code);
	CHECK(ffi_prep_closure(c, add_cif(), add, &k) == FFI_OK);
	CHECK(CODE(add_fn, code)(1, 2) == 7);
	k = 5;
	CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, NULL) == FFI_OK);
	CHECK(CODE(add_fn, code)(1, 2) == 8);
	ffi_closure_free(c);
}

static void none(ffi_cif *cif, void *ret, void **args, void *data)
{
	(void)cif;
	(void)ret;
	(void)args;
	*(int *)data += 1;
}

static void no_arguments_and_no_result(void)
{
	int calls = 0;
	ffi_cif cif;
	void *code;
	ffi_closure *c = ffi_closure_alloc(sizeof(*c), &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 0, &ffi_type_void, NULL) ==
	      FFI_OK);
	CHECK(ffi_prep_closure_loc(c, &cif, none, &calls, code) == FFI_OK);
	CODE(void (*)(void), code)();
	CODE(void (*)(void), code)();
	CHECK(calls == 2);
	ffi_closure_free(c);
}

static void __attribute__((ms_abi)) call_ms(void *code, int *sum)
{
	*sum = CODE(int(__attribute__((ms_abi)) *)(int, int), code)(30, 4);
}

/* The same closure, under one convention and the other. */
static void foreign_convention(void)
{
	ffi_cif cif;
	int k = 8, sum = 0, i;
	void *code;
	ffi_closure *c = add_closure(&k, &code);

	CHECK(ffi_prep_cif(&cif, FFI_GNUW64, 2, &ffi_type_sint32, two_ints) ==
	      FFI_OK);
	for (i = 0; i < 3; i++) {
		CHECK(ffi_prep_closure_loc(c, &cif, add, &k, code) == FFI_OK);
		call_ms(code, &sum);
		CHECK(sum == 42);
		CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, code) ==
		      FFI_OK);
		CHECK(CODE(add_fn, code)(1, 2) == 11);
	}
	/* Also in a block that is not from the slab. */
	ffi_closure_free(c);
	c = ffi_closure_alloc(500, &code);
	CHECK(ffi_prep_closure_loc(c, &cif, add, &k, code) == FFI_OK);
	call_ms(code, &sum);
	CHECK(sum == 42);
	ffi_closure_free(c);
}

static void many(void)
{
	enum { COUNT = 100000 };
	static ffi_closure *closures[COUNT];
	static void *codes[COUNT];
	static int values[COUNT];
	int count = few(COUNT), i;

	for (i = 0; i < count; i++) {
		values[i] = i;
		closures[i] = add_closure(&values[i], &codes[i]);
	}
	for (i = 0; i < count; i++)
		CHECK(CODE(add_fn, codes[i])(1, 2) == i + 3);
	for (i = 0; i < count; i += 2)
		ffi_closure_free(closures[i]);
	for (i = 1; i < count; i += 2)
		CHECK(CODE(add_fn, codes[i])(1, 2) == i + 3);
	for (i = 0; i < count; i += 2)
		closures[i] = add_closure(&values[i], &codes[i]);
	for (i = 0; i < count; i++)
		CHECK(CODE(add_fn, codes[i])(1, 2) == i + 3);
}

/* The child frees and makes again what the parent goes on using. */
static void over_fork(void)
{
	enum { COUNT = 300 };
	ffi_closure *closures[COUNT];
	void *codes[COUNT];
	int values[COUNT], other = -1000, status, i;
	pid_t pid;

	for (i = 0; i < COUNT; i++) {
		values[i] = i;
		closures[i] = add_closure(&values[i], &codes[i]);
	}
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		for (i = 0; i < COUNT; i++)
			CHECK(CODE(add_fn, codes[i])(1, 2) == i + 3);
		for (i = 0; i < COUNT; i++)
			ffi_closure_free(closures[i]);
		for (i = 0; i < 2 * COUNT; i++) {
			void *code;

			add_closure(&other, &code);
			CHECK(CODE(add_fn, code)(1, 2) == -997);
		}
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	for (i = 0; i < COUNT; i++)
		CHECK(CODE(add_fn, codes[i])(1, 2) == i + 3);
	for (i = 0; i < COUNT; i++)
		ffi_closure_free(closures[i]);
}

struct passed {
	ffi_closure *closure;
	void *code;
	int value;
};

static void *frees_of_another_thread(void *arg)
{
	struct passed *passed = arg;
	int i;

	for (i = 0; i < few(1000); i++) {
		CHECK(CODE(add_fn, passed[i].code)(1, 2) ==
		      passed[i].value + 3);
		ffi_closure_free(passed[i].closure);
		passed[i].value = -i;
		passed[i].closure =
			add_closure(&passed[i].value, &passed[i].code);
	}
	return NULL;
}

static void threads(void)
{
	enum { THREADS = 8 };
	static struct passed passed[THREADS][1000];
	pthread_t threads[THREADS];
	int round, i, j;

	add_cif();
	for (i = 0; i < THREADS; i++) {
		for (j = 0; j < few(1000); j++) {
			passed[i][j].value = j;
			passed[i][j].closure = add_closure(&passed[i][j].value,
							   &passed[i][j].code);
		}
	}
	for (round = 0; round < 10; round++) {
		for (i = 0; i < THREADS; i++)
			CHECK(!pthread_create(&threads[i], NULL,
					      frees_of_another_thread,
					      passed[(i + round) % THREADS]));
		for (i = 0; i < THREADS; i++)
			CHECK(!pthread_join(threads[i], NULL));
	}
}

static pthread_key_t key;

/* Runs when the thread's own list is gone already. */
static void frees_late(void *closure)
{
	int k = 9;
	void *code;
	ffi_closure *c;

	ffi_closure_free(closure);
	c = add_closure(&k, &code);
	CHECK(CODE(add_fn, code)(1, 2) == 12);
	ffi_closure_free(c);
}

static void *ends(void *unused)
{
	static int k = 1;
	void *code;

	(void)unused;
	CHECK(!pthread_setspecific(key, add_closure(&k, &code)));
	return NULL;
}

static void thread_that_ends(void)
{
	int i;

	CHECK(!pthread_key_create(&key, frees_late));
	for (i = 0; i < few(2000); i++) {
		pthread_t thread;

		CHECK(!pthread_create(&thread, NULL, ends, NULL));
		CHECK(!pthread_join(thread, NULL));
	}
}

static void a_freed_one_traps(void)
{
	int k = 1, status;
	void *code;
	ffi_closure *c = add_closure(&k, &code);
	pid_t pid = fork();

	if (!pid) {
		ffi_closure_free(c);
		CODE(add_fn, code)(1, 2);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
	pid = fork();
	if (!pid) {
		/* Never prepared. */
		c = ffi_closure_alloc(sizeof(*c), &code);
		CODE(add_fn, code)(1, 2);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
}

static const struct test tests[] = {
	TEST(alloc_of_nothing),
	TEST(sizes),
	TEST(sizes_alternate),
	TEST(fields_are_read_at_each_call),
	TEST(prepared_again),
	TEST(code_address_does_not_matter),
	TEST(no_arguments_and_no_result),
	TEST(foreign_convention),
	TEST(many),
	TEST(over_fork),
	TEST(threads),
	TEST(thread_that_ends),
	TEST(a_freed_one_traps),
};
MAIN(tests)
