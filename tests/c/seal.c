// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What SEAL and SEAL_ALL refuse, to whom, and until when. */
#include "harness.h"

static int fd;
static struct table t;

static void prepare(void)
{
	fd = device();
	t = table(fd);
	ASSERT_OK(set_one(fd, stub(&t, 0), CODE, 100));
}

static void expect_sealed(int by)
{
	uint64_t live = stub(&t, 0);

	EXPECT_ERR(set_one(by, stub(&t, 1), CODE, 1), EPERM);
	EXPECT_ERR(set_one(by, stub(&t, page_slot(5)), CODE, 1), EPERM);
	EXPECT_ERR(set_run(by, stub(&t, 1), 2, CODE, 1, 0), EPERM);
	EXPECT_ERR(clear_run(by, live, 1), EPERM);
	EXPECT_ERR(clear_array(by, &live, 1, NULL), EPERM);
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_EQ(get_one(by, live).data, 100);
	EXPECT_EQ(get_one(by, stub(&t, 1)).code, 0);
}

static void expect_free(int by)
{
	EXPECT_OK(set_one(by, stub(&t, 1), CODE, 101));
	EXPECT_EQ(call(&t, 1), 101);
	EXPECT_OK(clear_run(by, stub(&t, 1), 1));
	EXPECT_EQ(call_signal(stub(&t, 1)), SIGILL);
	EXPECT_EQ(call(&t, 0), 100);
}

TEST(seal_refuses_set_and_clear)
{
	prepare();
	expect_free(fd);
	EXPECT_OK(seal_one(fd, stub(&t, 7)));
	expect_sealed(fd);
	EXPECT_OK(seal_one(fd, stub(&t, 0)));
	expect_sealed(fd);
}

TEST(seal_through_a_freshly_opened_fd)
{
	int second;

	prepare();
	EXPECT_OK(seal_one(fd, stub(&t, 0)));
	second = device();
	expect_sealed(second);
	close(fd);
	expect_sealed(second);
	expect_sealed(open(DEVICE, O_RDWR));
}

/* It could load another register, and so change what every stub does. */
TEST(seal_refuses_another_code_view)
{
	prepare();
	EXPECT_OK(seal_one(fd, stub(&t, 0)));
	EXPECT_OK(munmap(t.code, D));
	EXPECT_ERR(map_code_at(fd, t.code, REG_DEFAULT, MAP_SHARED), EPERM);
	EXPECT_ERR(map_code_at(fd, t.code, REG_DEFAULT, MAP_PRIVATE), EPERM);
	EXPECT_ERR(map_code_at(device(), t.code, REG_DEFAULT, MAP_SHARED), EPERM);
}

TEST(seal_concerns_one_table_only)
{
	struct table other;

	prepare();
	other = table(fd);
	EXPECT_OK(seal_one(fd, stub(&t, 0)));
	EXPECT_OK(set_one(fd, stub(&other, 0), CODE, 5));
	EXPECT_EQ(call(&other, 0), 5);
	other = table(fd);
	EXPECT_OK(set_one(fd, stub(&other, 0), CODE, 5));
	expect_sealed(fd);
}

TEST(seal_refusals)
{
	prepare();
	EXPECT_ERR(seal_one(fd, 0), EFAULT);
	EXPECT_ERR(seal_one(fd, U64(t.data)), EFAULT);
	EXPECT_ERR(seal_one(fd, CODE & ~0xfffULL), EFAULT);
	EXPECT_ERR(seal_one(fd, stub(&t, 0) + 1), EINVAL);
	expect_free(fd);
}

TEST(seal_holds_in_child_and_grandchild)
{
	prepare();
	EXPECT_OK(seal_one(fd, stub(&t, 0)));
	IN_CHILD {
		expect_sealed(fd);
		expect_sealed(device());
		IN_CHILD {
			expect_sealed(fd);
			expect_sealed(device());
		}
	}
	expect_sealed(fd);
}

TEST(childs_seal_leaves_the_parent_free)
{
	prepare();
	IN_CHILD {
		EXPECT_OK(seal_one(fd, stub(&t, 0)));
		expect_sealed(fd);
		IN_CHILD
			expect_sealed(fd);
	}
	expect_free(fd);
	IN_CHILD
		expect_free(fd);
}

TEST(parents_seal_leaves_the_child_free)
{
	struct turns turns;
	pid_t pid;

	prepare();
	turns_make(&turns);
	pid = fork();
	if (pid == 0) {
		wait_turn(turns.down);
		expect_free(fd);
		IN_CHILD
			expect_free(fd);
		_exit(0);
	}
	EXPECT_OK(seal_one(fd, stub(&t, 0)));
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
	expect_sealed(fd);
}

/* A child that made the table its own (by a change) is sealed as much. */
TEST(seal_after_the_child_changed_its_copy)
{
	prepare();
	IN_CHILD {
		ASSERT_OK(set_one(fd, stub(&t, 3), CODE, 3));
		EXPECT_OK(seal_one(fd, stub(&t, 3)));
		expect_sealed(fd);
		IN_CHILD
			expect_sealed(fd);
	}
	expect_free(fd);
}

static void expect_no_mmap(void)
{
	int fresh = device();
	uint8_t *at = reserve(2 * D);

	EXPECT_ERR(mmap(NULL, D, PROT_READ, MAP_SHARED, fd, TRAMPFD_OFF_DATA), EPERM);
	EXPECT_ERR(mmap(NULL, D, PROT_READ, MAP_PRIVATE, fresh, TRAMPFD_OFF_DATA), EPERM);
	EXPECT_ERR(map_data_at(fresh, at + D, MAP_SHARED), EPERM);
	close(fresh);
}

TEST(seal_all_refuses_set_clear_and_mmap)
{
	struct table second;

	prepare();
	second = table_with(fd, REG_DEFAULT, MAP_PRIVATE);
	EXPECT_OK(seal_all(fd));
	expect_sealed(fd);
	expect_sealed(device());
	EXPECT_ERR(set_one(fd, stub(&second, 0), CODE, 1), EPERM);
	expect_no_mmap();
	EXPECT_OK(seal_all(fd));
	/* One table less keeps the seal. */
	unmap_table(&second);
	expect_no_mmap();
}

TEST(seal_all_holds_a_prepared_data_view)
{
	uint8_t *at;

	prepare();
	at = reserve(2 * D);
	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	EXPECT_OK(seal_all(fd));
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EPERM);
}

TEST(seal_all_after_a_seal_and_before)
{
	struct table second;

	prepare();
	second = table(fd);
	EXPECT_OK(seal_one(fd, stub(&second, 0)));
	EXPECT_OK(seal_all(fd));
	expect_no_mmap();
	expect_sealed(fd);
	EXPECT_OK(seal_one(fd, stub(&second, 0)));
	expect_no_mmap();
}

TEST(seal_all_holds_in_child_and_grandchild)
{
	prepare();
	EXPECT_OK(seal_all(fd));
	IN_CHILD {
		expect_sealed(fd);
		expect_no_mmap();
		IN_CHILD {
			expect_sealed(device());
			expect_no_mmap();
		}
	}
}

TEST(childs_seal_all_leaves_the_parent_free)
{
	struct table more;

	prepare();
	IN_CHILD {
		EXPECT_OK(seal_all(fd));
		expect_sealed(fd);
		expect_no_mmap();
	}
	expect_free(fd);
	more = table(fd);
	EXPECT_OK(set_one(fd, stub(&more, 0), CODE, 1));
}

TEST(parents_seal_all_leaves_the_child_free)
{
	struct turns turns;
	pid_t pid;

	prepare();
	turns_make(&turns);
	pid = fork();
	if (pid == 0) {
		struct table more;

		wait_turn(turns.down);
		expect_free(fd);
		more = table(fd);
		EXPECT_OK(set_one(fd, stub(&more, 0), CODE, 1));
		_exit(0);
	}
	EXPECT_OK(seal_all(fd));
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
	expect_no_mmap();
}

TEST(seal_all_of_another_process_is_none_of_ours)
{
	struct turns turns;
	pid_t pid;

	turns_make(&turns);
	pid = fork();
	if (pid == 0) {
		prepare();
		EXPECT_OK(seal_all(fd));
		signal_turn(turns.up);
		wait_turn(turns.down);
		expect_sealed(fd);
		_exit(0);
	}
	wait_turn(turns.up);
	prepare();
	expect_free(fd);
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
}

TEST(seal_all_without_a_table_is_enxio)
{
	fd = device();
	EXPECT_ERR(seal_all(fd), ENXIO);
	t = table(fd);
	unmap_table(&t);
	EXPECT_ERR(seal_all(fd), ENXIO);
	prepare();
	expect_free(fd);
}

TEST(seal_all_ends_at_exec)
{
	prepare();
	EXPECT_OK(seal_all(fd));
	IN_CHILD {
		expect_no_mmap();
		execl("/proc/self/exe", "seal", "--exec", "a_new_program_is_free", NULL);
		_exit(9);
	}
	expect_no_mmap();
}

TEST(a_new_program_is_free)
{
	prepare();
	expect_free(fd);
}

TEST(seal_all_of_the_other_doors)
{
	prepare();
	EXPECT_OK(seal_all(fd));
	EXPECT_ERR(mprotect(t.code, D, PROT_READ | PROT_WRITE), EACCES);
	EXPECT_ERR(mprotect(t.data, D, PROT_READ | PROT_EXEC), EACCES);
	EXPECT_ERR(mremap(t.code, D, D, MREMAP_MAYMOVE | MREMAP_FIXED, reserve(D)), EINVAL);
	EXPECT_OK(mprotect(t.code, D, PROT_READ));
	EXPECT_OK(mprotect(t.code, D, PROT_READ | PROT_EXEC));
	expect_sealed(fd);
	EXPECT_OK(madvise(t.data, D, MADV_DONTNEED));
	EXPECT_OK(madvise(t.code, D, MADV_DONTNEED));
	expect_sealed(fd);
}
