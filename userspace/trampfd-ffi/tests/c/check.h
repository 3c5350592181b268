/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Tests are functions in a table; each runs in a child, so that one that crashes is one that
 * failed. Prints TAP. In the environment:
 *
 *   STUBS=kernel   closures must come from the kernel service; STUBS=text, from static text
 *   FEW=1          this machine is emulated: a fortieth of what takes long
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
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #cond);      \
			fflush(stdout);                                        \
			_exit(1);                                              \
		}                                                              \
	} while (0)

struct test {
	const char *name;
	void (*run)(void);
};

#define TEST(name) { #name, name }

/* So many, or few. */
static inline int few(int count)
{
	return getenv("FEW") ? count / 40 + 1 : count;
}

/* Whether an address lies in a mapping of the kernel service. */
static inline int is_kernel(const void *code)
{
	char line[512];
	int found = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	CHECK(maps);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;

		CHECK(sscanf(line, "%lx-%lx", &start, &end) == 2);
		if ((unsigned long)code >= start && (unsigned long)code < end)
			found = strstr(line, "/dev/trampfd") != NULL;
	}
	fclose(maps);
	return found;
}

static inline void stubs_are_as_expected(void)
{
	const char *expected = getenv("STUBS");
	void *code, *closure = ffi_closure_alloc(sizeof(ffi_closure), &code);

	CHECK(closure);
	if (expected)
		CHECK(is_kernel(code) == !strcmp(expected, "kernel"));
	ffi_closure_free(closure);
}

/* libffi.so.8 may be the drop-in, or another one with our closures preloaded. */
static inline int run_tests(const struct test *tests, size_t count)
{
	size_t failed = 0, i;

	printf("1..%zu\n", count);
	for (i = 0; i < count; i++) {
		int status;
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (!pid) {
			alarm(100);
			stubs_are_as_expected();
			tests[i].run();
			fflush(stdout);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 2;
		if (status) {
			failed++;
			printf("not ok %zu - %s: %s %d\n", i + 1, tests[i].name,
			       WIFSIGNALED(status) ? "signal" : "exit",
			       WIFSIGNALED(status) ? WTERMSIG(status) :
						     WEXITSTATUS(status));
		} else {
			printf("ok %zu - %s\n", i + 1, tests[i].name);
		}
	}
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
