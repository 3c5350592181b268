// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The program's own text as a target, in programs linked in other ways than the rest. */
#include "harness.h"

#ifdef WITH_LIBRARY
uint64_t lib_give_data(void);
#endif

static void expect_target(uint64_t code)
{
	int fd = device();
	struct table t = table(fd);

	EXPECT_OK(set_one(fd, stub(&t, 0), code, 42));
	EXPECT_EQ(call(&t, 0), 42);
}

TEST(own_text)
{
	expect_target(CODE);
}

TEST(own_data_is_eperm)
{
	int fd = device();
	struct table t = table(fd);
	static uint64_t word = 0xc3;
	static const uint64_t constant = 0xc3;

	EXPECT_ERR(set_one(fd, stub(&t, 0), U64(&word), 1), EPERM);
	EXPECT_ERR(set_one(fd, stub(&t, 0), U64(&constant), 1), EPERM);
}

TEST(libc_text)
{
	int fd = device();
	struct table t = table(fd);
	pid_t (*f)(void);

	EXPECT_OK(set_one(fd, stub(&t, 0), U64(getppid), 0));
	f = (pid_t (*)(void))(uintptr_t)stub(&t, 0);
	EXPECT_EQ(f(), getppid());
}

#ifdef WITH_LIBRARY
TEST(shared_library)
{
	expect_target(U64(lib_give_data));
}
#endif
