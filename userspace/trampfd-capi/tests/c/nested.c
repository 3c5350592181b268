// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The runtime of nested functions, called as GCC's and flang's code calls it:
 * `created` when a function is entered whose nested function's address it
 * takes, `deleted` in the same frame when it is left.
 *
 *	outer(x)   frame { x, ptr }  ── created(&frame, nested_add, &frame.ptr)
 *	             ptr(1) == x + 1
 *	           deleted()
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"
#if defined(__x86_64__)
#include "arch/x86_64.h"
#endif

#define NOINLINE __attribute__((noinline, noclone))

typedef long (*function)(long);

void __gcc_nested_func_ptr_created(void *chain, void *func, void *dst);
void __gcc_nested_func_ptr_deleted(void);
void *_FortranATrampolineInit(void *scratch, const void *callee, const void *chain);
void *_FortranATrampolineAdjust(void *handle);
void _FortranATrampolineFree(void *handle);

long nested_add(long);
long nested_sub(long);
long chain_value(long);
void single_step(int on);

struct frame {
	long x;
	function add;
	function sub;
};

static inline __attribute__((always_inline)) void create(struct frame *frame)
{
	__gcc_nested_func_ptr_created(frame, (void *)nested_add, &frame->add);
}

static inline __attribute__((always_inline)) void create_sub(struct frame *frame)
{
	__gcc_nested_func_ptr_created(frame, (void *)nested_sub, &frame->sub);
}

#define DELETE __gcc_nested_func_ptr_deleted()

static void mdwe(void)
{
	CHECK(!prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0), "this kernel has no PR_SET_MDWE");
}

static void crashes(void (*run)(void *), void *arg, int with)
{
	int code;
	pid_t child = fork();

	if (!child) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		run(arg);
		_exit(0);
	}
	CHECK(waitpid(child, &code, 0) == child);
	CHECK(WIFSIGNALED(code) && WTERMSIG(code) == with, "status %#x", code);
}

/* ---- frames that nest -------------------------------------------------- */

NOINLINE static long outer(long x)
{
	struct frame frame = { .x = x };
	long sum;

	create(&frame);
	sum = frame.add(1);
	DELETE;
	return sum;
}

NOINLINE static long recurse(long depth)
{
	struct frame frame = { .x = depth };
	long sum;

	create(&frame);
	sum = depth ? recurse(depth - 1) : 0;
	/* After all the others: none of them may have taken this one. */
	CHECK(frame.add(1) == depth + 1, "depth %ld", depth);
	DELETE;
	return sum + 1;
}

static void nests(void)
{
	for (long x = 0; x < 1000; x++)
		CHECK(outer(x) == x + 1);
	CHECK(recurse(1000) == 1001);
	CHECK(outer(7) == 8);
}

/* Many more than one table has, without a writable and executable mapping. */
static void many_under_mdwe(void)
{
	struct rlimit stack;
	long before, after, wx;

	mdwe();
	getrlimit(RLIMIT_STACK, &stack);
	before = mappings(&wx);
	CHECK(recurse(40000) == 40001);
	after = mappings(&wx);
	CHECK(wx == 0, "%ld mappings are writable and executable", wx);
	/* 20 tables, each with slots. */
	CHECK(after - before < 100, "%ld mappings more", after - before);
	CHECK(recurse(40000) == 40001);
	CHECK(mappings(&wx) <= after + 2, "the second time needs new tables");
}

/* These system calls fail with EPERM from now on. */
static void refuse(const int *calls, int count)
{
	struct sock_filter program[16] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog filter = { .filter = program };
	int n;

	for (n = 0; n < count; n++)
		program[n + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							      calls[n], count - n, 0);
	program[++n] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program[++n] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	filter.len = n + 1;
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), "%m");
}

/* Where the table in memory cannot be duplicated, the program's file is mapped. */
static void many_from_the_file(void)
{
	static const int no_mremap[] = { SYS_mremap };
	long wx;

	mdwe();
	refuse(no_mremap, 1);
	CHECK(recurse(10000) == 10001);
	CHECK(outer(1) == 2 && (mappings(&wx), wx == 0));
}

static void more_than_there_are(void *arg)
{
	static const int neither[] = { SYS_mremap, SYS_openat, SYS_open };

	refuse(neither, 3);
	recurse((long)arg);
}

/* There is no result to say it by. */
static void no_more_to_be_had(void)
{
	int fds[2];
	char said[200] = "";

	CHECK(recurse(100) == 101 && !pipe(fds));
	dup2(2, 10);
	dup2(fds[1], 2);
	crashes(more_than_there_are, (void *)5000, SIGABRT);
	dup2(10, 2);
	CHECK(read(fds[0], said, sizeof(said) - 1) > 0);
	CHECK(strstr(said, "trampfd: the table of nested functions' pointers is full"), "%s", said);
}

NOINLINE static long several(long x, size_t room)
{
	struct frame frame = { .x = x };
	volatile char *space;
	long sum;

	create(&frame);
	space = alloca(room);
	space[0] = space[room - 1] = 1;
	create_sub(&frame);
	sum = outer(x) + frame.add(1) + frame.sub(1);
	DELETE;
	CHECK(frame.add(2) == x + 2);
	DELETE;
	return sum;
}

static void several_in_one_frame(void)
{
	struct frame frame = { .x = 5 };

	create(&frame);
	for (size_t room = 16; room < 100000; room += 997)
		CHECK(several(3, room) == 4 + 4 - 2);
	CHECK(frame.add(1) == 6);
	DELETE;
}

/*
 * A function that was inlined: two frames in one, and the order of their
 * addresses is the compiler's choice.
 */
static void inlined(void)
{
	struct frame frames[3] = { { .x = 0 }, { .x = 1 }, { .x = 2 } };

	create(&frames[1]);
	for (int round = 0; round < 100; round++) {
		create(&frames[round % 2 ? 0 : 2]);
		CHECK(frames[1].add(1) == 2);
		CHECK(frames[round % 2 ? 0 : 2].add(1) == (round % 2 ? 1 : 3));
		DELETE;
		CHECK(frames[1].add(1) == 2, "round %d", round);
	}
	DELETE;
}

/* A sanitizer's copy of the frame: the chain is not on the stack. */
NOINLINE static long off_stack(long depth)
{
	struct frame *frame = malloc(sizeof(*frame));
	long sum;

	frame->x = depth;
	create(frame);
	sum = depth ? off_stack(depth - 1) : 0;
	CHECK(frame->add(1) == depth + 1);
	DELETE;
	free(frame);
	return sum + outer(1);
}

/* As compilers never call it: in a function that returns before the pointer is used. */
NOINLINE static void create_for(struct frame *frame, size_t room)
{
	volatile char *space = alloca(room);

	space[0] = 1;
	create(frame);
}

NOINLINE static void delete_for(size_t room)
{
	volatile char *space = alloca(room);

	space[0] = 1;
	DELETE;
}

static void chains_off_the_stack(void)
{
	enum { COUNT = 3000 };
	struct frame *frames = calloc(COUNT, sizeof(*frames));

	CHECK(off_stack(500) == 501 * 2);
	for (long n = 0; n < COUNT; n++) {
		frames[n].x = n;
		create_for(&frames[n], 16 + n * 7919 % 1000);
		CHECK(outer(n) == n + 1);
	}
	for (long n = COUNT - 1; n >= 0; n--) {
		CHECK(frames[n].add(1) == n + 1 && frames[0].add(1) == 1, "%ld", n);
		delete_for(16 + n * 7907 % 1000);
	}
	free(frames);
}

/* ---- frames that are gone ---------------------------------------------- */

static jmp_buf back;

NOINLINE static void leave(long depth)
{
	struct frame frame = { .x = depth };

	create(&frame);
	if (!depth)
		longjmp(back, 1);
	leave(depth - 1);
	DELETE;
}

/* The same with frames of other sizes. */
NOINLINE static void leave_wide(long depth, size_t room)
{
	struct frame frame = { .x = depth };
	volatile char *space = alloca(room);

	space[0] = 1;
	create(&frame);
	create_sub(&frame);
	if (!depth)
		longjmp(back, 1);
	leave_wide(depth - 1, room + 48);
	DELETE;
	DELETE;
}

static void left_by_longjmp(void)
{
	struct frame frame = { .x = 9 };
	volatile long rss = 0, maps = 0;
	long wx;

	create(&frame);
	for (volatile long n = 0; n < 200000; n++) {
		if (n == 20000) {
			rss = status("VmRSS");
			maps = mappings(&wx);
		}
		if (!setjmp(back)) {
			if (n % 3)
				leave(n % 7);
			else
				leave_wide(n % 5, 16 + n % 61 * 16);
		}
		CHECK(frame.add(1) == 10, "round %ld", n);
		if (n % 11 == 0)
			CHECK(outer(n) == n + 1);
	}
	DELETE;
	CHECK(status("VmRSS") - rss < 256, "%ld KiB more", status("VmRSS") - rss);
	CHECK(mappings(&wx) - maps < 3);
}

/* Far below what follows: nothing overlaps it. */
NOINLINE static void left_far_below(long depth)
{
	volatile char space[50000];

	space[0] = space[49999] = 1;
	if (!setjmp(back))
		leave(depth);
}

static void left_deep_frames(void)
{
	long wx, maps;

	recurse(400);
	maps = mappings(&wx);
	for (int n = 0; n < 1000; n++) {
		left_far_below(300);
		CHECK(outer(n) == n + 1);
	}
	CHECK(mappings(&wx) == maps, "%ld mappings more", mappings(&wx) - maps);
}

static void *abandon(void *depth)
{
	struct frame frame = { .x = 1 };

	create(&frame);
	create_sub(&frame);
	CHECK(frame.add(1) == 2 && frame.sub(1) == 0);
	CHECK(recurse((long)depth) == (long)depth + 1);
	pthread_exit(NULL);
}

static void threads_that_end(void)
{
	volatile long rss = 0;
	long wx, maps = 0;

	for (int n = 0; n < 5000; n++) {
		pthread_t thread;

		if (n == 500) {
			rss = status("VmRSS");
			maps = mappings(&wx);
		}
		CHECK(!pthread_create(&thread, NULL, abandon, (void *)(long)(n % 100)));
		pthread_join(thread, NULL);
	}
	CHECK(status("VmRSS") - rss < 256, "%ld KiB more", status("VmRSS") - rss);
	CHECK(mappings(&wx) <= maps + 2);
}

static void *work(void *arg)
{
	for (long n = 0; n < 300; n++)
		CHECK(recurse((long)arg + n % 50) == (long)arg + n % 50 + 1);
	return NULL;
}

static void threads_at_once(void)
{
	pthread_t threads[16];

	for (long n = 0; n < 16; n++)
		CHECK(!pthread_create(&threads[n], NULL, work, (void *)(n * 20)));
	for (int n = 0; n < 16; n++)
		pthread_join(threads[n], NULL);
}

static pthread_key_t late;

static void use_late(void *value)
{
	(void)value;
	CHECK(outer(3) == 4);
}

static void *set_late(void *arg)
{
	pthread_setspecific(late, arg);
	return (void *)outer(1);
}

/* A destructor that runs after the thread's record was given back. */
static void used_by_destructors(void)
{
	CHECK(outer(1) == 2);
	CHECK(!pthread_key_create(&late, use_late));
	for (int n = 0; n < 3000; n++) {
		pthread_t thread;

		CHECK(!pthread_create(&thread, NULL, set_late, &late));
		pthread_join(thread, NULL);
	}
}

static void call(void *pointer)
{
	((function)pointer)(1);
}

/* Reads the pointer of a frame that returned. */
NOINLINE static function escaping(void)
{
	struct frame frame = { .x = 1 };
	volatile function kept;

	create(&frame);
	kept = frame.add;
	DELETE;
	return kept;
}

static void called_too_late(void)
{
	crashes(call, (void *)escaping(), SIGILL);
}

/* ---- other stacks ------------------------------------------------------ */

#define COROUTINES 40
#define STACK (64 * 1024)

static ucontext_t home, contexts[COROUTINES];
static char stacks[COROUTINES][STACK] __attribute__((aligned(64)));
static int done[COROUTINES];

NOINLINE static void coroutine_frames(long n, long depth)
{
	struct frame frame = { .x = 100 * n + depth };

	create(&frame);
	if (depth % 2)
		create_sub(&frame);
	swapcontext(&contexts[n], &home);
	CHECK(frame.add(1) == frame.x + 1, "coroutine %ld depth %ld", n, depth);
	if (depth)
		coroutine_frames(n, depth - 1);
	swapcontext(&contexts[n], &home);
	CHECK(frame.add(1) == frame.x + 1, "coroutine %ld depth %ld", n, depth);
	if (depth % 2) {
		CHECK(frame.sub(frame.x) == 0);
		DELETE;
		swapcontext(&contexts[n], &home);
		CHECK(frame.add(1) == frame.x + 1, "coroutine %ld depth %ld", n, depth);
	}
	DELETE;
}

static void coroutine(int n)
{
	coroutine_frames(n, n % 6);
	done[n] = 1;
}

static void start_coroutines(void)
{
	for (int n = 0; n < COROUTINES; n++) {
		getcontext(&contexts[n]);
		contexts[n].uc_stack.ss_sp = stacks[n];
		contexts[n].uc_stack.ss_size = STACK;
		contexts[n].uc_link = &home;
		done[n] = 0;
		makecontext(&contexts[n], (void (*)(void))coroutine, 1, n);
	}
}

/* One step of some coroutine, in an order that is not theirs. */
static int step(unsigned *random)
{
	*random = *random * 1103515245 + 12345;
	for (unsigned n = 0; n < COROUTINES; n++) {
		unsigned which = ((*random >> 16) + n) % COROUTINES;

		if (!done[which]) {
			swapcontext(&home, &contexts[which]);
			return 1;
		}
	}
	return 0;
}

static void coroutines(void)
{
	struct frame frame = { .x = 1 };
	unsigned random = 1;

	create(&frame);
	for (int round = 0; round < 20; round++) {
		start_coroutines();
		while (step(&random)) {
			CHECK(frame.add(1) == 2);
			CHECK(outer(5) == 6);
		}
	}
	DELETE;
}

static void *some_steps(void *random)
{
	for (int n = 0; n < 5 && step(random); n++)
		;
	return NULL;
}

/* Each few steps in another thread, which then ends. */
static void coroutines_that_move(void)
{
	unsigned random = 7;
	int left;

	start_coroutines();
	do {
		pthread_t thread;

		CHECK(!pthread_create(&thread, NULL, some_steps, &random));
		pthread_join(thread, NULL);
		left = 0;
		for (int n = 0; n < COROUTINES; n++)
			left += !done[n];
	} while (left);
}

static volatile long handled;

static void on_signal(int number)
{
	(void)number;
	CHECK(outer(handled) == handled + 1);
	CHECK(recurse(3) == 4);
	handled++;
}

static void interrupt(int flags)
{
	static char other[256 * 1024];
	stack_t stack = { .ss_sp = other, .ss_size = sizeof(other) };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
	struct itimerval often = { { 0, 50 }, { 0, 50 } }, never = { { 0, 0 }, { 0, 0 } };
	time_t until = time(NULL) + 2;

	sigaltstack(&stack, NULL);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	while (time(NULL) < until) {
		for (int n = 0; n < 100; n++) {
			CHECK(outer(n) == n + 1);
			CHECK(recurse(n % 20) == n % 20 + 1);
		}
	}
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK(handled > 100, "%ld signals only", handled);
}

static void signals(void)
{
	interrupt(SA_RESTART);
}

static void signals_on_their_stack(void)
{
	interrupt(SA_RESTART | SA_ONSTACK);
}

/* Signals in coroutines meet the other list. */
static void signals_in_coroutines(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct itimerval often = { { 0, 100 }, { 0, 100 } }, never = { { 0, 0 }, { 0, 0 } };
	time_t until = time(NULL) + 2;
	unsigned random = 3;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	while (time(NULL) < until) {
		start_coroutines();
		while (step(&random))
			;
	}
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK(handled > 100, "%ld signals only", handled);
}

static sigjmp_buf out;

static void leave_handler(int number)
{
	struct frame frame = { .x = number };

	create(&frame);
	CHECK(frame.add(1) == number + 1);
	handled++;
	siglongjmp(out, 1);
}

/* The handler never returns: what it interrupted is never finished. */
static void signals_left_by_longjmp(void)
{
	struct frame frame = { .x = 4 };
	struct sigaction action = { .sa_handler = leave_handler };
	struct itimerval often = { { 0, 50 }, { 0, 50 } }, never = { { 0, 0 }, { 0, 0 } };
	time_t until = time(NULL) + 2;

	create(&frame);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	while (time(NULL) < until) {
		/* Before the jump, one handler would be called inside the other. */
		if (sigsetjmp(out, 0)) {
			sigset_t alarm;

			sigemptyset(&alarm);
			sigaddset(&alarm, SIGALRM);
			sigprocmask(SIG_UNBLOCK, &alarm, NULL);
		} else {
			for (int n = 0; n < 1000; n++) {
				CHECK(outer(n) == n + 1);
				CHECK(recurse(n % 20) == n % 20 + 1);
			}
		}
		CHECK(frame.add(1) == 5);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK(handled > 100, "%ld signals only", handled);
	DELETE;
}

/*
 * A handler after each single instruction, which does something after one of
 * them: none may be a bad moment.
 */
static volatile long steps, act_at;
static volatile int leaves_handler;

NOINLINE static void act(int number)
{
	struct frame frame = { .x = number };

	create(&frame);
	CHECK(recurse(20) == 21 && frame.add(1) == number + 1);
	if (leaves_handler)
		siglongjmp(out, 1);
	DELETE;
}

static void on_step(int number)
{
	if (++steps == act_at)
		act(number);
}

NOINLINE static void stepped(long x)
{
	struct frame frame = { .x = x };

	/* To be given back by whoever is first. */
	left_far_below(5);
	single_step(1);
	create(&frame);
	create_sub(&frame);
	outer(x);
	DELETE;
	DELETE;
	outer(x);
	single_step(0);
}

static void step_handler(int flags)
{
	static char other[64 * 1024];
	stack_t stack = { .ss_sp = other, .ss_size = sizeof(other) };
	struct sigaction action = { .sa_handler = on_step, .sa_flags = flags };

	sigaltstack(&stack, NULL);
	sigaction(SIGTRAP, &action, NULL);
}

static void at_each_instruction(int leaves)
{
	struct frame frame = { .x = 1 };
	volatile long maps = 0;
	long wx;

	leaves_handler = leaves;
	create(&frame);
	for (volatile int round = 0; round < 2; round++) {
		step_handler(round ? SA_ONSTACK : 0);
		act_at = 0;
		/* Until it comes to its end before. */
		do {
			steps = 0;
			act_at++;
			if (!sigsetjmp(out, 1))
				stepped(7);
			CHECK(frame.add(1) == 2, "after %ld steps", act_at);
			CHECK(recurse(100) == 101, "after %ld steps", act_at);
		} while (steps >= act_at);
		CHECK(act_at > 200, "%ld steps only", act_at);
		if (!round)
			maps = mappings(&wx);
	}
	CHECK(outer(1) == 2);
	/* What was left in the middle costs a slot at most: less than a table. */
	CHECK(mappings(&wx) - maps <= 2, "%ld mappings more", mappings(&wx) - maps);
	DELETE;
}

static void signals_at_each_instruction(void)
{
	at_each_instruction(0);
}

static void left_at_each_instruction(void)
{
	at_each_instruction(1);
}

/* ---- fork -------------------------------------------------------------- */

NOINLINE static void fork_inside(long depth)
{
	struct frame frame = { .x = depth };
	int code;
	pid_t child;

	create(&frame);
	if (depth) {
		fork_inside(depth - 1);
	} else {
		child = fork();
		if (!child) {
			CHECK(recurse(3000) == 3001);
			CHECK(frame.add(1) == 1);
			DELETE;
			CHECK(recurse(3000) == 3001);
			_exit(0);
		}
		CHECK(recurse(100) == 101);
		CHECK(waitpid(child, &code, 0) == child && code == 0, "%#x", code);
	}
	CHECK(frame.add(1) == depth + 1, "the child changed the parent's");
	DELETE;
}

static atomic_int stop;

static void *churn(void *arg)
{
	static char space[4][STACK];
	ucontext_t here, other;

	(void)arg;
	while (!stop) {
		recurse(30);
		/* The other list, and its lock. */
		getcontext(&other);
		other.uc_stack.ss_sp = space[(long)arg];
		other.uc_stack.ss_size = STACK;
		other.uc_link = &here;
		makecontext(&other, (void (*)(void))outer, 1, 1);
		swapcontext(&here, &other);
	}
	return NULL;
}

static void on_other_stack(void)
{
	static char space[STACK];
	ucontext_t here, other;

	getcontext(&other);
	other.uc_stack.ss_sp = space;
	other.uc_stack.ss_size = STACK;
	other.uc_link = &here;
	makecontext(&other, (void (*)(void))outer, 1, 1);
	swapcontext(&here, &other);
}

static void forks(void)
{
	pthread_t threads[4];

	fork_inside(50);
	for (long n = 0; n < 4; n++)
		CHECK(!pthread_create(&threads[n], NULL, churn, (void *)n));
	for (int n = 0; n < 300; n++) {
		int code;
		pid_t child = fork();

		if (!child) {
			alarm(20);
			CHECK(recurse(200) == 201);
			on_other_stack();
			_exit(0);
		}
		CHECK(waitpid(child, &code, 0) == child && code == 0, "%#x", code);
	}
	stop = 1;
	for (int n = 0; n < 4; n++)
		pthread_join(threads[n], NULL);
}

/* ---- flang ------------------------------------------------------------- */

#define HANDLES 5000

static void *handles[HANDLES];
static long values[HANDLES];

static void *free_half(void *first)
{
	for (long n = (long)first; n < HANDLES; n += 2)
		_FortranATrampolineFree(handles[n]);
	return NULL;
}

static void free_again(void *handle)
{
	_FortranATrampolineFree(handle);
}

static void flang(void)
{
	long wx, maps = 0;

	mdwe();
	for (int round = 0; round < 3; round++) {
		pthread_t threads[2];

		for (long n = 0; n < HANDLES; n++) {
			values[n] = n;
			handles[n] = _FortranATrampolineInit(NULL, (void *)nested_add, &values[n]);
			CHECK(handles[n]);
		}
		for (long n = 0; n < HANDLES; n++) {
			function f = (function)_FortranATrampolineAdjust(handles[n]);

			CHECK(f(1) == n + 1);
		}
		CHECK(outer(1) == 2);
		if (!round)
			maps = mappings(&wx);
		CHECK(mappings(&wx) <= maps + 4 && wx == 0);
		for (long n = 0; n < 2; n++)
			CHECK(!pthread_create(&threads[n], NULL, free_half, (void *)n));
		for (long n = 0; n < 2; n++)
			pthread_join(threads[n], NULL);
	}
	_FortranATrampolineFree(NULL);
	crashes(call, handles[1], SIGILL);
	crashes(free_again, handles[1], SIGABRT);
	crashes(free_again, &values[1], SIGABRT);
}

/* ---- time -------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

NOINLINE static void make_and_drop(struct frame *frame)
{
	create(frame);
	__asm__ volatile("" ::: "memory");
	DELETE;
}

/* ns to make and drop one: printed, not judged. */
static void speed(void)
{
	struct frame frame = { .x = 1 };
	double best = 1;

	for (int round = 0; round < 20; round++) {
		double start = seconds();

		for (int n = 0; n < 200000; n++)
			make_and_drop(&frame);
		start = (seconds() - start) / 200000;
		best = start < best ? start : best;
	}
	printf("%.1f ns\n", best * 1e9);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(nests),
		TEST(many_under_mdwe),
		TEST(many_from_the_file),
		TEST(no_more_to_be_had),
		TEST(several_in_one_frame),
		TEST(inlined),
		TEST(chains_off_the_stack),
		TEST(left_by_longjmp),
		TEST(left_deep_frames),
		TEST(threads_that_end),
		TEST(threads_at_once),
		TEST(used_by_destructors),
		TEST(called_too_late),
		TEST(coroutines),
		TEST(coroutines_that_move),
		TEST(signals),
		TEST(signals_on_their_stack),
		TEST(signals_in_coroutines),
		TEST(signals_left_by_longjmp),
		TEST(signals_at_each_instruction),
		TEST(left_at_each_instruction),
		TEST(forks),
		TEST(flang),
		TEST(speed),
		{ NULL, NULL },
	};

	(void)chain_value;
	return run_tests(tests, argc > 1 ? argv[1] : NULL);
}
