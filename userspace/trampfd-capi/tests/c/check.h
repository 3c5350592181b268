/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A test program: `PROGRAM NAME` runs one test, without a name it lists them.
 * A check that fails says where, and ends the program. In the environment:
 *
 *   TAP=1   runs them all, each in a child, and prints TAP
 *   FEW=1   this machine is emulated: a hundredth of what takes long
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition, ...)						\
	((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition, "" __VA_ARGS__))

__attribute__((noreturn))
static inline void failed(const char *file, int line, const char *condition,
			  const char *why, ...)
{
	va_list list;

	fprintf(stderr, "%s:%d: not %s: ", file, line, condition);
	va_start(list, why);
	vfprintf(stderr, why, list);
	va_end(list);
	fputc('\n', stderr);
	_exit(1);
}

struct test {
	const char *name;
	void (*run)(void);
};

#define TEST(name) { #name, name }

/* So many, or few. */
static inline long few(long count)
{
	return getenv("FEW") ? count / 100 + 1 : count;
}

static int run_all(const struct test *tests)
{
	int count = 0, failed = 0;

	for (; tests[count].name; count++) {
		int code = 0;
		pid_t child;

		fflush(stdout);
		child = fork();
		if (!child) {
			alarm(100);
			tests[count].run();
			fflush(stdout);
			_exit(0);
		}
		if (child < 0 || waitpid(child, &code, 0) != child)
			return 2;
		failed += code != 0;
		printf("%sok %d - %s\n", code ? "not " : "", count + 1, tests[count].name);
	}
	printf("1..%d\n", count);
	return failed != 0;
}

/* For main(); the last test has no name. */
static int run_tests(const struct test *tests, const char *name)
{
	if (getenv("TAP"))
		return run_all(tests);
	for (; tests->name; tests++) {
		if (!name) {
			puts(tests->name);
		} else if (!strcmp(tests->name, name)) {
			tests->run();
			puts("ok");
			return 0;
		}
	}
	if (name)
		fprintf(stderr, "there is no test %s\n", name);
	return name ? 2 : 0;
}

/* A number of /proc/self/status in KiB; 0: there is none. */
static inline long status(const char *key)
{
	char line[256];
	long value = 0;
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			value = strtol(line + strlen(key) + 1, NULL, 10);
	}
	if (file)
		fclose(file);
	return value;
}

/* Mappings of this process; those writable and executable in *wx. */
static inline long mappings(long *wx)
{
	char line[4096];
	long count = 0;
	FILE *file = fopen("/proc/self/maps", "re");

	*wx = 0;
	while (file && fgets(line, sizeof(line), file)) {
		const char *mode = strchr(line, ' ');

		count++;
		if (mode && mode[2] == 'w' && mode[3] == 'x')
			++*wx;
	}
	if (file)
		fclose(file);
	return count;
}

#endif
