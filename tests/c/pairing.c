// SPDX-License-Identifier: GPL-2.0 OR MIT
/* A code view runs only beside the data view it was paired with. */
#include "harness.h"

static int fd;
static struct table t;

static void prepare(void)
{
	fd = device();
	t = table(fd);
	ASSERT_OK(set_one(fd, stub(&t, 0), CODE, 100));
}

static uint64_t *forge(void *at)
{
	uint64_t *slot = mmap(at, D, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	size_t i;

	ASSERT(slot == at);
	for (i = 0; i < D / 16; i++) {
		slot[2 * i] = 0x666;
		slot[2 * i + 1] = CODE;
	}
	return slot;
}

TEST(code_view_first_is_einval)
{
	uint8_t *at = reserve(2 * D);

	fd = device();
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EINVAL);
	EXPECT_ERR(mmap(NULL, D, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd,
			TRAMPFD_OFF_CODE(REG_DEFAULT)), EINVAL);
	EXPECT_ERR(mmap(NULL, D, PROT_READ, MAP_PRIVATE, fd,
			TRAMPFD_OFF_CODE(REG_DEFAULT)), EINVAL);
}

/* The data view below, and the right distance on the wrong side. */
TEST(wrong_order_in_memory_is_einval)
{
	uint8_t *at = reserve(3 * D);

	fd = device();
	ASSERT(map_data_at(fd, at, MAP_SHARED) != MAP_FAILED);
	EXPECT_ERR(map_code_at(fd, at + D, REG_DEFAULT, MAP_SHARED), EINVAL);
	EXPECT_ERR(map_code_at(fd, at + 2 * D, REG_DEFAULT, MAP_SHARED), EINVAL);
}

TEST(half_size_is_einval)
{
	uint8_t *at = reserve(4 * D);

	fd = device();
	EXPECT_ERR(mmap(at + D, D / 2, PROT_READ, MAP_SHARED | MAP_FIXED, fd, TRAMPFD_OFF_DATA),
		   EINVAL);
	at = reserve(4 * D);
	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	EXPECT_ERR(mmap(at, D / 2, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd,
			TRAMPFD_OFF_CODE(REG_DEFAULT)), EINVAL);
	EXPECT_ERR(mmap(at + D / 2, D / 2, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd,
			TRAMPFD_OFF_CODE(REG_DEFAULT)), EINVAL);
}

TEST(wrong_distance_is_einval)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uint8_t *at = reserve(5 * D), *data = at + 3 * D;

	fd = device();
	ASSERT(map_data_at(fd, data, MAP_SHARED) != MAP_FAILED);
	EXPECT_ERR(map_code_at(fd, data - D - page, REG_DEFAULT, MAP_SHARED), EINVAL);
	EXPECT_ERR(map_code_at(fd, data - 2 * D, REG_DEFAULT, MAP_SHARED), EINVAL);
	EXPECT_ERR(map_code_at(fd, data - D - D / 2, REG_DEFAULT, MAP_SHARED), EINVAL);
	/* The right one, to show that only the distance was wrong. */
	EXPECT(map_code_at(fd, data - D, REG_DEFAULT, MAP_SHARED) == data - D);
}

TEST(other_memory_behind_is_einval)
{
	uint8_t *at = reserve(2 * D);
	int zero = open("/dev/zero", O_RDONLY);

	fd = device();
	forge(at + D);
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EINVAL);
	ASSERT(mmap(at + D, D, PROT_READ, MAP_PRIVATE | MAP_FIXED, zero, 0) == at + D);
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EINVAL);
	/* A code view is no data view. */
	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	prepare();
	at = t.code - D;
	if (mmap(at, D, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at)
		EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EINVAL);
	EXPECT_EQ(call(&t, 0), 100);
}

/*
 * There is one address for the code view of a data view, so a second register
 * can only come in the place of the first: then the first one is gone.
 */
TEST(second_register_over_one_data_view)
{
	const int rax = 0;
	uint64_t mark;

	prepare();
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_ERR(mmap(NULL, D, PROT_READ | PROT_EXEC, MAP_SHARED, fd, TRAMPFD_OFF_CODE(rax)),
		   EINVAL);
	EXPECT_ERR(mmap(t.code, D, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
			TRAMPFD_OFF_CODE(rax)), EEXIST);
	EXPECT_EQ(call(&t, 0), 100);
	ASSERT_OK(set_one(fd, stub(&t, 1), U64(keep_regs), 0x1234));
	ASSERT(map_code_at(fd, t.code, rax, MAP_SHARED) == t.code);
	call_with_regs((void *)stub(&t, 1));
	mark = REG_MARK(REG_DEFAULT);
	EXPECT_EQ(seen_regs[rax], 0x1234);
	EXPECT_EQ(seen_regs[REG_DEFAULT], mark);
	EXPECT_EQ(get_one(fd, stub(&t, 1)).data, 0x1234);
}

TEST(code_view_unmapped_and_mapped_again)
{
	unsigned int i;

	prepare();
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(call(&t, 0), 100);
		EXPECT_OK(munmap(t.code, D));
		EXPECT_ERR(set_one(fd, stub(&t, 1), CODE, 1), EFAULT);
		ASSERT(map_code_at(fd, t.code, REG_DEFAULT, MAP_SHARED) == t.code);
		EXPECT_EQ(call(&t, 0), 100);
		EXPECT_ERR(set_one(fd, stub(&t, 0), CODE, 1), EBUSY);
		EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 101));
		EXPECT_EQ(call(&t, 1), 101);
		EXPECT_OK(clear_run(fd, stub(&t, 1), 1));
	}
}

static void expect_dead(void)
{
	uint64_t live = stub(&t, 0);
	struct trampfd_slot e = { stub(&t, 0), 0, 0 };

	EXPECT_EQ(call_signal(stub(&t, 0)), SIGBUS);
	EXPECT_EQ(call_signal(stub(&t, 1)), SIGBUS);
	EXPECT_EQ(call_signal(stub(&t, page_slot(9))), SIGBUS);
	EXPECT_EQ(read_signal(t.code), SIGBUS);
	EXPECT_ERR(set_one(fd, stub(&t, 1), CODE, 1), ENXIO);
	EXPECT_ERR(set_run(fd, stub(&t, 1), 2, CODE, 1, 0), ENXIO);
	EXPECT_ERR(clear_array(fd, &live, 1, NULL), ENXIO);
	EXPECT_ERR(get_array(fd, &e, 1, NULL), ENXIO);
	EXPECT_ERR(seal_one(fd, live), ENXIO);
}

/* The code page is in the page table when its partner goes: it must leave it. */
TEST(data_view_unmapped_after_a_call)
{
	prepare();
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_OK(munmap(t.data, D));
	forge(t.data);
	expect_dead();
}

/* The code page is not yet there: the fault must refuse it. */
TEST(data_view_unmapped_before_a_call)
{
	prepare();
	EXPECT_OK(munmap(t.data, D));
	forge(t.data);
	expect_dead();
}

TEST(data_view_replaced_in_one_step)
{
	prepare();
	EXPECT_EQ(call(&t, 0), 100);
	forge(t.data);
	expect_dead();
}

TEST(data_view_gone_and_nothing_there)
{
	prepare();
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_OK(munmap(t.data, D));
	expect_dead();
	/* PROT_NONE and back is another way to make the code page fault anew. */
	EXPECT_OK(mprotect(t.code, D, PROT_NONE));
	EXPECT_OK(mprotect(t.code, D, PROT_READ | PROT_EXEC));
	forge(t.data);
	expect_dead();
}

/* A new data view is a new table: the old code view has no part in it. */
TEST(data_view_replaced_by_a_new_data_view)
{
	prepare();
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_OK(munmap(t.data, D));
	ASSERT(map_data_at(fd, t.data, MAP_SHARED) == t.data);
	expect_dead();
	ASSERT(map_code_at(fd, t.code, REG_DEFAULT, MAP_SHARED) == t.code);
	EXPECT_EQ(call_signal(stub(&t, 0)), SIGBUS);
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 200));
	EXPECT_EQ(call(&t, 0), 200);
}

TEST(data_view_of_a_neighbour_is_no_partner)
{
	struct table u;
	uint8_t *at = reserve(3 * D);

	/* code, data, and where the data view was, room for another table's code. */
	prepare();
	ASSERT(map_data_at(fd, at + 2 * D, MAP_SHARED) != MAP_FAILED);
	ASSERT(map_code_at(fd, at + D, REG_DEFAULT, MAP_SHARED) != MAP_FAILED);
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EINVAL);
	u = (struct table){ at + D, at + 2 * D };
	EXPECT_OK(set_one(fd, stub(&u, 0), CODE, 1));
	EXPECT_EQ(call(&u, 0), 1);
	EXPECT_EQ(call(&t, 0), 100);
}

/* Closing one data view takes away its own code view and no other. */
TEST(closing_one_table_leaves_the_others)
{
	struct table u, v;

	prepare();
	u = table(fd);
	v = table(fd);
	ASSERT_OK(set_one(fd, stub(&u, 0), CODE, 1));
	ASSERT_OK(set_one(fd, stub(&v, 0), CODE, 2));
	EXPECT_EQ(call(&u, 0), 1);
	EXPECT_EQ(call(&v, 0), 2);
	EXPECT_OK(munmap(u.data, D));
	EXPECT_EQ(call_signal(stub(&u, 0)), SIGBUS);
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_EQ(call(&v, 0), 2);
}

/* Both views changed hands by mprotect: a data view hidden does not let the code run. */
TEST(data_view_hidden_is_a_fault)
{
	prepare();
	EXPECT_OK(mprotect(t.data, D, PROT_NONE));
	EXPECT_EQ(call_signal(stub(&t, 0)), SIGSEGV);
	EXPECT_OK(mprotect(t.data, D, PROT_READ));
	EXPECT_EQ(call(&t, 0), 100);
}
