/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Tests are functions in a table; each runs in a child, so that one that crashes is one that
 * failed. Prints `ok NAME` or `failed NAME: WHY`; the last line says how many.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <ffi.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(cond)                                                            \
	do {                                                                   \
		if (!(cond)) {                                                 \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #cond);      \
			fflush(stdout);                                        \
			_exit(1);                                              \
		}                                                              \
	} while (0)

struct test {
	const char *name;
	void (*run)(void);
};

#define TEST(name) { #name, name }

/* libffi.so.8 may be the drop-in, or another one with our closures preloaded. */
static inline int run_tests(const struct test *tests, size_t count)
{
	size_t failed = 0, i;

	for (i = 0; i < count; i++) {
		int status;
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (!pid) {
			alarm(60);
			tests[i].run();
			fflush(stdout);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 2;
		if (status) {
			failed++;
			printf("failed %s: %s %d\n", tests[i].name,
			       WIFSIGNALED(status) ? "signal" : "exit",
			       WIFSIGNALED(status) ? WTERMSIG(status) :
						     WEXITSTATUS(status));
		} else {
			printf("ok %s\n", tests[i].name);
		}
	}
	printf("%zu passed, %zu failed\n", count - failed, failed);
	return failed != 0;
}

#define MAIN(tests)                                                            \
	int main(void)                                                         \
	{                                                                      \
		return run_tests(tests, sizeof(tests) / sizeof((tests)[0]));   \
	}

#define CODE(type, code) ((type)(uintptr_t)(code))

/* A prepared closure for int(int, int) that adds its arguments and *(int *)user_data. */
static ffi_type *two_ints[] = { &ffi_type_sint32, &ffi_type_sint32, NULL };

typedef int (*add_fn)(int, int);

static void __attribute__((unused))
add(ffi_cif *cif, void *ret, void **args, void *data)
{
	(void)cif;
	*(ffi_arg *)ret = *(int *)args[0] + *(int *)args[1] + *(int *)data;
}

static void __attribute__((unused))
multiply(ffi_cif *cif, void *ret, void **args, void *data)
{
	(void)cif;
	*(ffi_arg *)ret = *(int *)args[0] * *(int *)args[1] * *(int *)data;
}

static inline ffi_cif *add_cif(void)
{
	static ffi_cif cif;

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 2, &ffi_type_sint32,
			   two_ints) == FFI_OK);
	return &cif;
}

static inline ffi_closure *add_closure(int *data, void **code)
{
	ffi_closure *closure =
		(ffi_closure *)ffi_closure_alloc(sizeof(*closure), code);

	CHECK(closure);
	CHECK(ffi_prep_closure_loc(closure, add_cif(), add, data, *code) ==
	      FFI_OK);
	return closure;
}

#endif
