// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Threads that race SET, CLEAR, GET, SEAL, munmap and fork for a bounded time.
 * Whatever the order, a slot holds one of the contents that somebody SET, and
 * each call answers one of the errors that the order can explain.
 */
#include "harness.h"

#include <pthread.h>
#include <time.h>

#define MILLISECONDS	700

static int fd;
static struct table t;
static bool stop;

/* Slots that the racers share: two pages, a few slots in each. */
#define SHARED_SLOTS	8

static unsigned int shared_slot(unsigned int k)
{
	return k % 2 ? page_slot(1) + k : k;
}

static bool over(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static void race(void *(*const bodies[])(void *), unsigned int n)
{
	struct timespec while_racing = { 0, MILLISECONDS * 1000000L };
	pthread_t threads[4];
	unsigned int i;

	stop = false;
	for (i = 0; i < n; i++)
		ASSERT_OK(pthread_create(&threads[i], NULL, bodies[i], (void *)(uintptr_t)(i + 1)));
	nanosleep(&while_racing, NULL);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < n; i++)
		ASSERT_OK(pthread_join(threads[i], NULL));
}

/*
 * Legal contents: code and data that belong together. Bit 63 tells which code,
 * so a pair of one SET's code and another's data would show.
 */
static uint64_t legal_code(uint64_t data)
{
	return data >> 63 ? CODE_NOT : CODE;
}

static void check_legal(const struct trampfd_slot *e)
{
	if (!e->code && !e->data)
		return;
	CHECK_((e->data & 0xffff) == 0x7777 && e->code == legal_code(e->data), ,
	       "slot holds code %#llx, data %#llx", e->code, e->data);
}

static void *set_and_clear(void *arg)
{
	uint64_t me = U64(arg);
	unsigned int k = 0;

	while (!over()) {
		uint64_t at = stub(&t, shared_slot(k++ % SHARED_SLOTS));
		uint64_t data = (me & 1) << 63 | (uint64_t)k << 16 | 0x7777;

		if (set_one(fd, at, legal_code(data), data))
			CHECK_(errno == EBUSY, , "SET: %s", strerror(errno));
		if (clear_run(fd, at, 1))
			fail_at(__FILE__, __LINE__, "CLEAR: %s", strerror(errno));
	}
	return NULL;
}

static void *get_all(void *arg)
{
	(void)arg;
	while (!over()) {
		struct trampfd_slot e[SHARED_SLOTS];
		unsigned int k;

		for (k = 0; k < SHARED_SLOTS; k++)
			e[k].stub = stub(&t, shared_slot(k));
		if (get_array(fd, e, SHARED_SLOTS, NULL)) {
			fail_at(__FILE__, __LINE__, "GET: %s", strerror(errno));
			break;
		}
		for (k = 0; k < SHARED_SLOTS; k++)
			check_legal(&e[k]);
	}
	return NULL;
}

TEST(set_clear_get)
{
	void *(*const bodies[])(void *) = { set_and_clear, set_and_clear, get_all };

	fd = device();
	t = table(fd);
	race(bodies, 3);
	EXPECT_OK(clear_run(fd, stub(&t, 0), geometry()->slots_per_table));
}

/* A slot that nobody clears is called all the while: it answers its data, always. */
static void *call_own(void *arg)
{
	unsigned int own = page_slot(1) + 100;

	(void)arg;
	while (!over()) {
		uint64_t r = call(&t, own);

		if (r != 4242) {
			fail_at(__FILE__, __LINE__, "call answered %#lx", r);
			break;
		}
	}
	return NULL;
}

static void *fork_and_look(void *arg)
{
	(void)arg;
	while (!over()) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			struct trampfd_slot e[SHARED_SLOTS], again[SHARED_SLOTS];
			unsigned int k;

			for (k = 0; k < SHARED_SLOTS; k++)
				e[k].stub = again[k].stub = stub(&t, shared_slot(k));
			if (get_array(fd, e, SHARED_SLOTS, NULL))
				_exit(1);
			if (call(&t, page_slot(1) + 100) != 4242)
				_exit(2);
			for (k = 0; k < SHARED_SLOTS; k++)
				check_legal(&e[k]);
			/* Nothing the parent's threads do arrives here. */
			sched_yield();
			if (get_array(fd, again, SHARED_SLOTS, NULL) ||
			    memcmp(e, again, sizeof(e)))
				_exit(3);
			if (clear_run(fd, stub(&t, 0), geometry()->slots_per_table))
				_exit(4);
			if (set_one(fd, stub(&t, 0), CODE, 1) || call(&t, 0) != 1)
				_exit(5);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid ||
		    !WIFEXITED(status) || WEXITSTATUS(status)) {
			fail_at(__FILE__, __LINE__, "child ended with %#x", status);
			break;
		}
	}
	return NULL;
}

TEST(set_clear_call_fork)
{
	void *(*const bodies[])(void *) = { set_and_clear, call_own, fork_and_look, set_and_clear };

	fd = device();
	t = table(fd);
	ASSERT_OK(set_one(fd, stub(&t, page_slot(1) + 100), CODE, 4242));
	race(bodies, 4);
	EXPECT_EQ(call(&t, page_slot(1) + 100), 4242);
}

/* The table comes and goes under the calls of another thread. */
static void *map_and_unmap(void *arg)
{
	(void)arg;
	while (!over()) {
		struct table u;

		if (map_table_at(fd, t.code, REG_DEFAULT, MAP_SHARED, &u)) {
			fail_at(__FILE__, __LINE__, "mmap: %s", strerror(errno));
			break;
		}
		sched_yield();
		/* Each half first, in turns; the place stays reserved. */
		if (mmap(u.data, D, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		    u.data)
			fail_at(__FILE__, __LINE__, "unmapping: %s", strerror(errno));
		if (mmap(u.code, D, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		    u.code)
			fail_at(__FILE__, __LINE__, "unmapping: %s", strerror(errno));
	}
	return NULL;
}

static void *calls_on_what_may_be_gone(void *arg)
{
	uint64_t me = U64(arg);
	unsigned int k = 0;

	while (!over()) {
		uint64_t at = stub(&t, shared_slot(k++ % SHARED_SLOTS));
		uint64_t data = (me & 1) << 63 | (uint64_t)k << 16 | 0x7777;
		struct trampfd_slot e = { at, 0, 0 };

		if (set_one(fd, at, legal_code(data), data))
			CHECK_(errno == EBUSY || errno == EFAULT || errno == ENXIO, ,
			       "SET: %s", strerror(errno));
		if (get_array(fd, &e, 1, NULL))
			CHECK_(errno == EFAULT || errno == ENXIO, , "GET: %s", strerror(errno));
		else
			check_legal(&e);
		if (clear_run(fd, at, 1))
			CHECK_(errno == EFAULT || errno == ENXIO, , "CLEAR: %s", strerror(errno));
	}
	return NULL;
}

TEST(set_clear_get_munmap)
{
	void *(*const bodies[])(void *) = { map_and_unmap, calls_on_what_may_be_gone,
					    calls_on_what_may_be_gone };

	fd = device();
	t.code = reserve(2 * D);
	t.data = t.code + D;
	race(bodies, 3);
}

static void *only_fork(void *arg)
{
	(void)arg;
	while (!over()) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
			fail_at(__FILE__, __LINE__, "child ended with %#x", status);
			break;
		}
	}
	return NULL;
}

TEST(set_clear_munmap_fork)
{
	void *(*const bodies[])(void *) = { map_and_unmap, calls_on_what_may_be_gone, only_fork };

	fd = device();
	t.code = reserve(2 * D);
	t.data = t.code + D;
	race(bodies, 3);
}

/* Once a thread saw the seal, no SET succeeds any more. */
static bool sealed;

static void *set_until_sealed(void *arg)
{
	uint64_t me = U64(arg);
	unsigned int k = 0;

	while (!over()) {
		bool was_sealed = __atomic_load_n(&sealed, __ATOMIC_SEQ_CST);
		uint64_t at = stub(&t, shared_slot(k++ % SHARED_SLOTS));
		uint64_t data = (me & 1) << 63 | (uint64_t)k << 16 | 0x7777;
		int r = set_one(fd, at, legal_code(data), data);

		CHECK_(!r || errno == EBUSY || errno == EPERM, , "SET: %s", strerror(errno));
		CHECK_(!was_sealed || (r && errno == EPERM), , "SET after the seal: %d", r);
		r = clear_run(fd, at, 1);
		CHECK_(!r || errno == EPERM, , "CLEAR: %s", strerror(errno));
		CHECK_(!was_sealed || r, , "CLEAR after the seal");
	}
	return NULL;
}

static void *seal_midway(void *arg)
{
	struct timespec midway = { 0, MILLISECONDS * 500000L };

	nanosleep(&midway, NULL);
	if (U64(arg) == 3 ? seal_one(fd, stub(&t, 0)) : seal_all(fd))
		fail_at(__FILE__, __LINE__, "SEAL: %s", strerror(errno));
	__atomic_store_n(&sealed, true, __ATOMIC_SEQ_CST);
	return NULL;
}

TEST(set_clear_seal)
{
	void *(*const bodies[])(void *) = { set_until_sealed, set_until_sealed, seal_midway,
					    get_all };

	fd = device();
	t = table(fd);
	race(bodies, 4);
	EXPECT(sealed);
}

TEST(set_clear_seal_all)
{
	void *(*const bodies[])(void *) = { set_until_sealed, set_until_sealed, get_all,
					    seal_midway };

	fd = device();
	t = table(fd);
	race(bodies, 4);
	EXPECT(sealed);
}
