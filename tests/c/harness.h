/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The whole helper of the contract tests, in the manner of kselftest_harness.h.
 *
 * TEST(name) { ... } is one TAP line. Each test runs in its own child in its
 * own process group, so a crash, a hang or a left-over grandchild is a "not ok"
 * of that test and of no other. The outcome lies in memory shared with every
 * descendant: an expectation that fails in a grandchild fails the test. Module
 * parameters changed by param_set() are put back when the test has ended,
 * however it ended.
 *
 * EXPECT* goes on after a failure, ASSERT* ends the process it stands in.
 */
#ifndef TRAMPFD_HARNESS_H
#define TRAMPFD_HARNESS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <linux/trampfd.h>

#if defined(__x86_64__)
#include "arch/x86.h"
#endif

#define DEVICE		"/dev/trampfd"
#define PARAMS		"/sys/module/trampfd/parameters/"
#define TEST_SECONDS	60
#define D		((size_t)TRAMPFD_TABLE_SIZE)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* --- outcome ---------------------------------------------------------- */

struct param_saved {
	char name[32];
	char value[32];
};

/* What a test leaves behind, shared with all its descendants. */
struct outcome {
	int failed;
	char skip[160];
	char note[160];
	struct param_saved saved[8];
	int nsaved;
};

static struct outcome *outcome;

struct test {
	const char *name;
	void (*run)(void);
};

static struct test tests[128];
static unsigned int ntests;

#define TEST(id)							\
	static void test_##id(void);					\
	__attribute__((constructor)) static void register_##id(void)	\
	{								\
		tests[ntests++] = (struct test){ #id, test_##id };	\
	}								\
	static void test_##id(void)

__attribute__((format(printf, 3, 4)))
static inline void fail_at(const char *file, int line, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	/* One write: several processes may report at once. */
	n = snprintf(text, sizeof(text), "# %s:%d: ", file, line);
	va_start(ap, fmt);
	n += vsnprintf(text + n, sizeof(text) - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(text) - 2)
		n = sizeof(text) - 2;
	text[n++] = '\n';
	if (write(STDOUT_FILENO, text, n) != n)
		_exit(2);
	__atomic_add_fetch(&outcome->failed, 1, __ATOMIC_SEQ_CST);
}

#define CHECK_(cond, bail, ...) do {					\
	if (!(cond)) {							\
		fail_at(__FILE__, __LINE__, __VA_ARGS__);		\
		bail;							\
	}								\
} while (0)

#define EXPECT(cond)	CHECK_(cond, , "expected %s", #cond)
#define ASSERT(cond)	CHECK_(cond, _exit(1), "expected %s (errno %d: %s)", \
			       #cond, errno, strerror(errno))

#define COMPARE_(a, b, bail) do {					\
	long long a_ = (long long)(a), b_ = (long long)(b);		\
									\
	CHECK_(a_ == b_, bail, "expected %s == %s, got %lld (%#llx) and %lld (%#llx)", \
	       #a, #b, a_, a_, b_, b_);					\
} while (0)

#define EXPECT_EQ(a, b)	COMPARE_(a, b, )
#define ASSERT_EQ(a, b)	COMPARE_(a, b, _exit(1))

/* The call answers -1 (so does a failed mmap) and sets this errno. */
#define REFUSED_(call, err, bail) do {					\
	long r_, e_;							\
									\
	errno = 0;							\
	r_ = (long)(call);						\
	e_ = errno;							\
	CHECK_(r_ == -1 && e_ == (err), bail,				\
	       "%s: expected %s, got result %ld, errno %ld (%s)",	\
	       #call, #err, r_, e_, strerror(e_));			\
} while (0)

#define EXPECT_ERR(call, err)	REFUSED_(call, err, )
#define ASSERT_ERR(call, err)	REFUSED_(call, err, _exit(1))

/* The same where kernels differ in which of two errors it is. */
#define EXPECT_REFUSED(call, err, or_err) do {				\
	long r_, e_;							\
									\
	errno = 0;							\
	r_ = (long)(call);						\
	e_ = errno;							\
	CHECK_(r_ == -1 && (e_ == (err) || e_ == (or_err)), ,		\
	       "%s: expected %s or %s, got result %ld, errno %ld (%s)",	\
	       #call, #err, #or_err, r_, e_, strerror(e_));		\
} while (0)

/* The call answers 0. */
#define EXPECT_OK(call) do {						\
	long r_, e_;							\
									\
	errno = 0;							\
	r_ = (long)(call);						\
	e_ = errno;							\
	CHECK_(r_ == 0, , "%s: expected 0, got result %ld, errno %ld (%s)", \
	       #call, r_, e_, strerror(e_));				\
} while (0)

#define ASSERT_OK(call) do {						\
	long r_, e_;							\
									\
	errno = 0;							\
	r_ = (long)(call);						\
	e_ = errno;							\
	CHECK_(r_ == 0, _exit(1), "%s: expected 0, got result %ld, errno %ld (%s)", \
	       #call, r_, e_, strerror(e_));				\
} while (0)

/* The test cannot run here: ends the process, the line says why. */
#define SKIP(...) do {							\
	snprintf(outcome->skip, sizeof(outcome->skip), __VA_ARGS__);	\
	_exit(0);							\
} while (0)

/* The line stays ok and carries a remark. */
#define NOTE(...) snprintf(outcome->note, sizeof(outcome->note), __VA_ARGS__)

static inline void restore_params(void)
{
	while (outcome->nsaved > 0) {
		struct param_saved *p = &outcome->saved[--outcome->nsaved];
		char path[96];
		int fd;

		snprintf(path, sizeof(path), PARAMS "%s", p->name);
		fd = open(path, O_WRONLY);
		if (fd < 0 || write(fd, p->value, strlen(p->value)) < 0)
			fail_at(__FILE__, __LINE__, "cannot put back %s", path);
		close(fd);
	}
}

static inline unsigned long long param_get(const char *name)
{
	char path[96], text[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), PARAMS "%s", name);
	fd = open(path, O_RDONLY);
	ASSERT(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	ASSERT(n > 0);
	close(fd);
	text[n] = 0;
	if (text[0] == 'Y' || text[0] == 'N')
		return text[0] == 'Y';
	return strtoull(text, NULL, 10);
}

static inline void param_set(const char *name, unsigned long long value)
{
	struct param_saved *p = &outcome->saved[outcome->nsaved];
	char path[96], text[32];
	ssize_t n;
	int fd;

	ASSERT(outcome->nsaved < (int)ARRAY_SIZE(outcome->saved));
	snprintf(path, sizeof(path), PARAMS "%s", name);
	fd = open(path, O_RDWR);
	ASSERT(fd >= 0);
	snprintf(p->name, sizeof(p->name), "%s", name);
	n = read(fd, p->value, sizeof(p->value) - 1);
	ASSERT(n > 0);
	p->value[n] = 0;
	outcome->nsaved++;
	n = snprintf(text, sizeof(text), "%llu", value);
	ASSERT_EQ(pwrite(fd, text, n, 0), n);
	close(fd);
}

static volatile pid_t running;

static inline void overdue(int sig)
{
	(void)sig;
	kill(-running, SIGKILL);
}

int main(int argc, char **argv)
{
	unsigned int i, failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (outcome == MAP_FAILED)
		return 2;
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = overdue }, NULL);
	if (argc > 1 && !strcmp(argv[1], "--exec")) {
		/* A test started this program anew: run just that body, here. */
		for (i = 0; i < ntests; i++)
			if (argc > 2 && !strcmp(tests[i].name, argv[2])) {
				tests[i].run();
				return outcome->failed != 0;
			}
		return 2;
	}
	printf("TAP version 13\n1..%u\n", ntests);
	for (i = 0; i < ntests; i++) {
		struct test *t = &tests[i];
		int status;
		pid_t pid;

		memset(outcome, 0, sizeof(*outcome));
		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			setpgid(0, 0);
			t->run();
			_exit(0);
		}
		setpgid(pid, pid);
		running = pid;
		alarm(TEST_SECONDS);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		alarm(0);
		kill(-pid, SIGKILL);
		restore_params();
		if (WIFSIGNALED(status))
			fail_at(t->name, 0, "ended by signal %d (%s)",
				WTERMSIG(status), strsignal(WTERMSIG(status)));
		else if (WEXITSTATUS(status) != 0 && !outcome->failed)
			fail_at(t->name, 0, "exit code %d", WEXITSTATUS(status));
		if (outcome->failed) {
			failed++;
			printf("not ok %u - %s\n", i + 1, t->name);
		} else if (outcome->skip[0]) {
			printf("ok %u - %s # SKIP %s\n", i + 1, t->name, outcome->skip);
		} else {
			if (outcome->note[0])
				printf("# %s: %s\n", t->name, outcome->note);
			printf("ok %u - %s\n", i + 1, t->name);
		}
	}
	return failed != 0;
}

/* --- signals ---------------------------------------------------------- */

/* A signal that a piece of code raised in this thread, with its registers. */
struct caught {
	int sig;
	uintptr_t pc;
	uintptr_t addr;
	ucontext_t uc;
};

static __thread sigjmp_buf caught_jump;
static __thread struct caught *caught_now;

static inline void caught_handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if (!caught_now) {
		signal(sig, SIG_DFL);
		return;
	}
	caught_now->sig = sig;
	caught_now->pc = context_pc(uc);
	caught_now->addr = (uintptr_t)info->si_addr;
	caught_now->uc = *uc;
	siglongjmp(caught_jump, 1);
}

/* Runs f(arg); the signal it died of, or 0. */
static inline int catch_signal(void (*f)(void *), void *arg, struct caught *out)
{
	static const int sigs[] = { SIGILL, SIGBUS, SIGSEGV, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = caught_handler,
				.sa_flags = SA_SIGINFO }, old[4];
	struct caught local;
	struct caught *volatile c = out ? out : &local;
	unsigned int i;

	memset(c, 0, sizeof(*c));
	for (i = 0; i < 4; i++)
		sigaction(sigs[i], &sa, &old[i]);
	caught_now = c;
	if (!sigsetjmp(caught_jump, 1))
		f(arg);
	caught_now = NULL;
	for (i = 0; i < 4; i++)
		sigaction(sigs[i], &old[i], NULL);
	return c->sig;
}

static inline void do_read(void *p)
{
	(void)*(volatile uint8_t *)p;
}

static inline void do_write(void *p)
{
	*(volatile uint8_t *)p = 1;
}

static inline void do_call(void *p)
{
	((void (*)(void))p)();
}

#define read_signal(p)	catch_signal(do_read, (void *)(p), NULL)
#define write_signal(p)	catch_signal(do_write, (void *)(p), NULL)
#define call_signal(p)	catch_signal(do_call, (void *)(p), NULL)

/* --- processes -------------------------------------------------------- */

/*
 * Runs a body in a child and waits: IN_CHILD { ... } is an if. The parent
 * expects the child to exit with 0, whatever it did.
 */
static inline bool child_done(pid_t pid, const char *file, int line)
{
	int status;

	if (pid < 0) {
		fail_at(file, line, "fork: %s", strerror(errno));
		return true;
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			break;
	if (WIFSIGNALED(status))
		fail_at(file, line, "child ended by signal %d (%s)",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		fail_at(file, line, "child ended with %d", WEXITSTATUS(status));
	return true;
}

#define IN_CHILD							\
	for (pid_t pid_ = fork(), done_ = 0; !done_;			\
	     done_ = pid_ ? child_done(pid_, __FILE__, __LINE__) : (_exit(0), 1)) \
		if (pid_ == 0)

/* Two processes that take turns. */
struct turns {
	int up[2], down[2];
};

static inline void turns_make(struct turns *t)
{
	ASSERT_OK(pipe(t->up));
	ASSERT_OK(pipe(t->down));
}

static inline void signal_turn(int *p)
{
	ASSERT_EQ(write(p[1], "x", 1), 1);
}

static inline void wait_turn(int *p)
{
	char c;

	ASSERT_EQ(read(p[0], &c, 1), 1);
}

/* --- tables ----------------------------------------------------------- */

struct table {
	uint8_t *code;
	uint8_t *data;
};

static inline int device(void)
{
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);

	ASSERT(fd >= 0);
	return fd;
}

static inline int info_get(int fd, struct trampfd_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return ioctl(fd, TRAMPFD_INFO, info);
}

/* Geometry of this kernel, asked once. */
static inline const struct trampfd_info *geometry(void)
{
	static struct trampfd_info info;
	int fd;

	if (!info.abi_version) {
		fd = device();
		ASSERT_OK(info_get(fd, &info));
		close(fd);
	}
	return &info;
}

static inline uint8_t *reserve(size_t bytes)
{
	uint8_t *p = mmap(NULL, bytes, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ASSERT(p != MAP_FAILED);
	return p;
}

static inline void *map_data_at(int fd, void *at, int share)
{
	return mmap(at, D, PROT_READ, share | MAP_FIXED, fd, TRAMPFD_OFF_DATA);
}

static inline void *map_code_at(int fd, void *at, int reg, int share)
{
	return mmap(at, D, PROT_READ | PROT_EXEC, share | MAP_FIXED, fd,
		    TRAMPFD_OFF_CODE((off_t)reg));
}

/* 0, or -1 with errno and nothing mapped but the reservation. */
static inline int map_table_at(int fd, uint8_t *at, int reg, int share, struct table *t)
{
	int err;

	t->code = at;
	t->data = at + D;
	if (map_data_at(fd, t->data, share) == MAP_FAILED)
		return -1;
	if (map_code_at(fd, t->code, reg, share) == MAP_FAILED) {
		err = errno;
		munmap(t->data, D);
		errno = err;
		return -1;
	}
	return 0;
}

static inline int try_table(int fd, struct table *t)
{
	uint8_t *at = reserve(2 * D);
	int r = map_table_at(fd, at, REG_DEFAULT, MAP_SHARED, t), err = errno;

	if (r)
		munmap(at, 2 * D);
	errno = err;
	return r;
}

static inline struct table table_with(int fd, int reg, int share)
{
	struct table t;

	ASSERT_OK(map_table_at(fd, reserve(2 * D), reg, share, &t));
	return t;
}

static inline struct table table(int fd)
{
	return table_with(fd, REG_DEFAULT, MAP_SHARED);
}

static inline void unmap_table(struct table *t)
{
	EXPECT_OK(munmap(t->code, D));
	EXPECT_OK(munmap(t->data, D));
}

static inline size_t slot_offset(unsigned int i)
{
	const struct trampfd_info *g = geometry();

	return (size_t)(i / g->slots_per_page) * g->page_size +
	       (size_t)(i % g->slots_per_page) * g->slot_stride;
}

/* Address of stub i of a table. */
static inline uint64_t stub(const struct table *t, unsigned int i)
{
	return (uint64_t)(uintptr_t)t->code + slot_offset(i);
}

/* First slot of a page of a table. */
static inline unsigned int page_slot(unsigned int page)
{
	return page * geometry()->slots_per_page;
}

#define U64(p)	((uint64_t)(uintptr_t)(p))

static inline int set_call(int fd, struct trampfd_set *s)
{
	int tries = 1000, r;

	/* EAGAIN says that the page of code was in motion; any other answer counts. */
	do {
		r = ioctl(fd, TRAMPFD_SET, s);
	} while (r && errno == EAGAIN && --tries);
	return r;
}

static inline int set_array(int fd, struct trampfd_slot *entries, unsigned int n,
			    uint32_t *bad)
{
	struct trampfd_set s = { .size = sizeof(s), .count = n, .bad = 0xbad,
				 .entries = U64(entries) };
	int r = set_call(fd, &s);

	if (bad)
		*bad = s.bad;
	return r;
}

static inline int set_one(int fd, uint64_t at, uint64_t code, uint64_t data)
{
	struct trampfd_slot e = { at, code, data };

	return set_array(fd, &e, 1, NULL);
}

static inline int set_run(int fd, uint64_t at, unsigned int n, uint64_t code,
			  uint64_t data, uint64_t stride)
{
	struct trampfd_set s = { .size = sizeof(s), .flags = TRAMPFD_SET_STRIDED,
				 .count = n, .stub = at, .code = code, .data = data,
				 .data_stride = stride };

	return set_call(fd, &s);
}

static inline int clear_run(int fd, uint64_t at, unsigned int n)
{
	struct trampfd_clear c = { .size = sizeof(c), .flags = TRAMPFD_CLEAR_RANGE,
				   .count = n, .stub = at };

	return ioctl(fd, TRAMPFD_CLEAR, &c);
}

static inline int clear_array(int fd, uint64_t *entries, unsigned int n, uint32_t *bad)
{
	struct trampfd_clear c = { .size = sizeof(c), .count = n, .bad = 0xbad,
				   .entries = U64(entries) };
	int r = ioctl(fd, TRAMPFD_CLEAR, &c);

	if (bad)
		*bad = c.bad;
	return r;
}

static inline int get_array(int fd, struct trampfd_slot *entries, unsigned int n,
			    uint32_t *bad)
{
	struct trampfd_get g = { .size = sizeof(g), .count = n, .bad = 0xbad,
				 .entries = U64(entries) };
	int r = ioctl(fd, TRAMPFD_GET, &g);

	if (bad)
		*bad = g.bad;
	return r;
}

static inline struct trampfd_slot get_one(int fd, uint64_t at)
{
	struct trampfd_slot e = { at, ~0ULL, ~0ULL };

	ASSERT_OK(get_array(fd, &e, 1, NULL));
	return e;
}

static inline int seal_one(int fd, uint64_t at)
{
	struct trampfd_seal s = { .size = sizeof(s), .stub = at };

	return ioctl(fd, TRAMPFD_SEAL, &s);
}

static inline int seal_all(int fd)
{
	struct trampfd_seal s = { .size = sizeof(s), .flags = TRAMPFD_SEAL_ALL };

	return ioctl(fd, TRAMPFD_SEAL, &s);
}

/* What every slot of a table holds, to prove that a refusal changed nothing. */
static inline struct trampfd_slot *snapshot(int fd, const struct table *t)
{
	unsigned int i, n = geometry()->slots_per_table;
	struct trampfd_slot *all = calloc(n, sizeof(*all));

	ASSERT(all);
	for (i = 0; i < n; i++)
		all[i].stub = stub(t, i);
	ASSERT_OK(get_array(fd, all, n, NULL));
	return all;
}

#define EXPECT_UNCHANGED(fd, t, before) do {				\
	struct trampfd_slot *after_ = snapshot(fd, t);			\
									\
	CHECK_(!memcmp(before, after_, geometry()->slots_per_table *	\
		       sizeof(*after_)), , "table %s changed", #t);	\
	free(after_);							\
} while (0)

#define CODE	U64(give_data)
#define CODE_NOT U64(give_data_not)

/* Calls stub i of a table that loads r10. */
static inline uint64_t call(const struct table *t, unsigned int i)
{
	return ((uint64_t (*)(void))(uintptr_t)stub(t, i))();
}

#endif /* TRAMPFD_HARNESS_H */
