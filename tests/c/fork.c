// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Parent and child never see each other's later changes. */
#include "harness.h"

#include <pthread.h>

static int fd;
static struct table t;

/* Slots 0 (a page of its own), and one in each of pages 2 and 3. */
static void prepare(void)
{
	fd = device();
	t = table(fd);
	ASSERT_OK(set_one(fd, stub(&t, 0), CODE, 100));
	ASSERT_OK(set_one(fd, stub(&t, page_slot(2)), CODE, 102));
	ASSERT_OK(set_one(fd, stub(&t, page_slot(3)), CODE, 103));
}

static void retarget(unsigned int i, uint64_t data)
{
	ASSERT_OK(clear_run(fd, stub(&t, i), 1));
	ASSERT_OK(set_one(fd, stub(&t, i), CODE, data));
}

static void expect_original(void)
{
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_EQ(call(&t, page_slot(2)), 102);
	EXPECT_EQ(call(&t, page_slot(3)), 103);
	EXPECT_EQ(get_one(fd, stub(&t, 0)).data, 100);
}

TEST(childs_set_is_unseen_by_the_parent)
{
	prepare();
	expect_original();
	IN_CHILD {
		retarget(0, 200);
		ASSERT_OK(set_one(fd, stub(&t, 1), CODE, 201));
		ASSERT_OK(set_one(fd, stub(&t, page_slot(7)), CODE, 207));
		EXPECT_EQ(call(&t, 0), 200);
		EXPECT_EQ(call(&t, 1), 201);
		EXPECT_EQ(call(&t, page_slot(7)), 207);
		EXPECT_EQ(call(&t, page_slot(2)), 102);
	}
	expect_original();
	EXPECT_EQ(call_signal(stub(&t, 1)), SIGILL);
	EXPECT_EQ(call_signal(stub(&t, page_slot(7))), SIGBUS);
}

/* The copy takes the place of the page that the child had in its page table. */
TEST(child_that_faulted_first_sees_its_own_change)
{
	prepare();
	IN_CHILD {
		expect_original();
		ASSERT_OK(set_one(fd, stub(&t, 1), CODE, 201));
		EXPECT_EQ(call(&t, 1), 201);
		EXPECT_EQ(call(&t, 0), 100);
		ASSERT_OK(clear_run(fd, stub(&t, page_slot(2)), 1));
		EXPECT_EQ(call_signal(stub(&t, page_slot(2))), SIGILL);
		EXPECT_EQ(call(&t, page_slot(3)), 103);
	}
	expect_original();
}

TEST(childs_clear_is_unseen_by_the_parent)
{
	prepare();
	IN_CHILD {
		ASSERT_OK(clear_run(fd, stub(&t, 0), geometry()->slots_per_table));
		EXPECT_EQ(call_signal(stub(&t, 0)), SIGILL);
		EXPECT_EQ(call_signal(stub(&t, page_slot(3))), SIGILL);
	}
	expect_original();
}

TEST(parents_change_is_unseen_by_the_child)
{
	struct turns turns;
	pid_t pid;

	prepare();
	turns_make(&turns);
	pid = fork();
	if (pid == 0) {
		wait_turn(turns.down);
		expect_original();
		EXPECT_EQ(call_signal(stub(&t, 1)), SIGILL);
		EXPECT_EQ(call_signal(stub(&t, page_slot(8))), SIGBUS);
		_exit(0);
	}
	retarget(0, 300);
	ASSERT_OK(set_one(fd, stub(&t, 1), CODE, 301));
	ASSERT_OK(set_one(fd, stub(&t, page_slot(8)), CODE, 308));
	ASSERT_OK(clear_run(fd, stub(&t, page_slot(2)), 1));
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
	EXPECT_EQ(call(&t, 0), 300);
	EXPECT_EQ(call(&t, 1), 301);
	EXPECT_EQ(call_signal(stub(&t, page_slot(2))), SIGILL);
	EXPECT_EQ(call(&t, page_slot(3)), 103);
}

/* As above, but the child has the old pages in its page table when the parent writes. */
TEST(parents_change_is_unseen_by_a_child_that_faulted_first)
{
	struct turns turns;
	pid_t pid;

	prepare();
	turns_make(&turns);
	pid = fork();
	if (pid == 0) {
		expect_original();
		signal_turn(turns.up);
		wait_turn(turns.down);
		expect_original();
		retarget(0, 400);
		EXPECT_EQ(call(&t, 0), 400);
		signal_turn(turns.up);
		wait_turn(turns.down);
		EXPECT_EQ(call(&t, 0), 400);
		EXPECT_EQ(call(&t, page_slot(2)), 102);
		_exit(0);
	}
	wait_turn(turns.up);
	retarget(0, 300);
	retarget(page_slot(2), 302);
	signal_turn(turns.down);
	wait_turn(turns.up);
	EXPECT_EQ(call(&t, 0), 300);
	retarget(0, 301);
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
	EXPECT_EQ(call(&t, 0), 301);
	EXPECT_EQ(call(&t, page_slot(2)), 302);
	EXPECT_EQ(call(&t, page_slot(3)), 103);
}

TEST(grandchild)
{
	prepare();
	IN_CHILD {
		retarget(0, 200);
		IN_CHILD {
			EXPECT_EQ(call(&t, 0), 200);
			EXPECT_EQ(call(&t, page_slot(2)), 102);
			retarget(0, 300);
			retarget(page_slot(2), 302);
			EXPECT_EQ(call(&t, 0), 300);
		}
		EXPECT_EQ(call(&t, 0), 200);
		EXPECT_EQ(call(&t, page_slot(2)), 102);
		IN_CHILD {
			EXPECT_EQ(call(&t, 0), 200);
			EXPECT_EQ(call(&t, page_slot(2)), 102);
		}
	}
	expect_original();
}

/* A grandchild whose parent is gone still has what it had. */
TEST(grandchild_outlives_the_child)
{
	struct turns turns;

	prepare();
	turns_make(&turns);
	IN_CHILD {
		retarget(0, 200);
		if (fork() == 0) {
			wait_turn(turns.down);
			EXPECT_EQ(call(&t, 0), 200);
			EXPECT_EQ(call(&t, page_slot(2)), 102);
			retarget(0, 300);
			EXPECT_EQ(call(&t, 0), 300);
			signal_turn(turns.up);
			_exit(0);
		}
	}
	retarget(page_slot(2), 500);
	signal_turn(turns.down);
	wait_turn(turns.up);
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_EQ(call(&t, page_slot(2)), 500);
}

TEST(childs_munmap_leaves_the_parents_table)
{
	prepare();
	IN_CHILD {
		expect_original();
		unmap_table(&t);
		EXPECT_ERR(set_one(fd, stub(&t, 1), CODE, 1), EFAULT);
	}
	expect_original();
	IN_CHILD {
		EXPECT_OK(munmap(t.data, D));
		EXPECT_EQ(call_signal(stub(&t, 0)), SIGBUS);
	}
	expect_original();
	retarget(0, 1);
	EXPECT_EQ(call(&t, 0), 1);
}

TEST(parents_munmap_leaves_the_childs_table)
{
	struct turns turns;
	pid_t pid;

	prepare();
	turns_make(&turns);
	pid = fork();
	if (pid == 0) {
		EXPECT_EQ(call(&t, 0), 100);
		signal_turn(turns.up);
		wait_turn(turns.down);
		expect_original();
		retarget(0, 200);
		EXPECT_EQ(call(&t, 0), 200);
		_exit(0);
	}
	wait_turn(turns.up);
	unmap_table(&t);
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
}

/* vfork shares the address space: the change is the parent's own. */
static void *vfork_body(void *unused)
{
	(void)unused;
	retarget(0, 200);
	_exit(0);
}

TEST(vfork_shares_the_table)
{
	pid_t pid;

	prepare();
	pid = vfork();
	if (pid == 0)
		vfork_body(NULL);
	ASSERT(pid > 0);
	child_done(pid, __FILE__, __LINE__);
	EXPECT_EQ(call(&t, 0), 200);
	EXPECT_EQ(call(&t, page_slot(2)), 102);
}

TEST(exec_leaves_nothing_behind)
{
	prepare();
	IN_CHILD {
		char at[32];

		retarget(0, 200);
		snprintf(at, sizeof(at), "%#lx", stub(&t, 0));
		setenv("STUB", at, 1);
		execl("/proc/self/exe", "fork", "--exec", "after_exec", NULL);
		_exit(9);
	}
	expect_original();
}

/* Started by the test above; as a test of its own it has a table made for it. */
TEST(after_exec)
{
	char *at = getenv("STUB");

	if (at) {
		int own = device();

		EXPECT_ERR(set_one(own, strtoull(at, NULL, 0), CODE, 1), EFAULT);
		EXPECT_EQ(read_signal(strtoull(at, NULL, 0)), SIGSEGV);
		return;
	}
	prepare();
	expect_original();
}

TEST(dontfork_child_has_no_table)
{
	prepare();
	EXPECT_OK(madvise(t.code, D, MADV_DONTFORK));
	IN_CHILD {
		EXPECT_EQ(call_signal(stub(&t, 0)), SIGSEGV);
		EXPECT_ERR(set_one(fd, stub(&t, 1), CODE, 1), EFAULT);
	}
	expect_original();
}

/* Only the data view stays behind: a code view without a partner does not run. */
TEST(dontfork_of_the_data_view_alone)
{
	prepare();
	EXPECT_OK(madvise(t.data, D, MADV_DONTFORK));
	IN_CHILD {
		EXPECT_EQ(call_signal(stub(&t, 0)), SIGBUS);
		EXPECT_ERR(set_one(fd, stub(&t, 1), CODE, 1), ENXIO);
		/* ... not even over memory of the child's own. */
		ASSERT(mmap(t.data, D, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == t.data);
		*(uint64_t *)(t.data + 8) = CODE_NOT;
		EXPECT_EQ(call_signal(stub(&t, 0)), SIGBUS);
	}
	expect_original();
}

static void *thread_body(void *arg)
{
	retarget(0, U64(arg));
	return NULL;
}

TEST(threads_share_the_table)
{
	pthread_t thread;

	prepare();
	ASSERT_OK(pthread_create(&thread, NULL, thread_body, (void *)600));
	ASSERT_OK(pthread_join(thread, NULL));
	EXPECT_EQ(call(&t, 0), 600);
	/* A thread of a child changes the child only. */
	IN_CHILD {
		ASSERT_OK(pthread_create(&thread, NULL, thread_body, (void *)700));
		ASSERT_OK(pthread_join(thread, NULL));
		EXPECT_EQ(call(&t, 0), 700);
	}
	EXPECT_EQ(call(&t, 0), 600);
}

TEST(many_generations)
{
	unsigned int i;

	prepare();
	for (i = 0; i < 50; i++) {
		IN_CHILD {
			EXPECT_EQ(call(&t, 0), i ? 1000 + i - 1 : 100);
			retarget(0, 2000 + i);
			IN_CHILD
				EXPECT_EQ(call(&t, 0), 2000 + i);
			EXPECT_EQ(call(&t, 0), 2000 + i);
		}
		retarget(0, 1000 + i);
		EXPECT_EQ(call(&t, 0), 1000 + i);
	}
	EXPECT_EQ(call(&t, page_slot(2)), 102);
	EXPECT_EQ(call(&t, page_slot(3)), 103);
}
