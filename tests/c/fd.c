// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The file descriptor is a door to the calls and nothing else. */
#include "harness.h"

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

static int fd;
static struct table t;

static void prepare(void)
{
	fd = device();
	t = table(fd);
	ASSERT_OK(set_one(fd, stub(&t, 0), CODE, 100));
}

TEST(closed_fd_leaves_the_table)
{
	prepare();
	close(fd);
	EXPECT_EQ(call(&t, 0), 100);
	fd = device();
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 101));
	EXPECT_EQ(call(&t, 1), 101);
	EXPECT_EQ(get_one(fd, stub(&t, 0)).data, 100);
}

/* The number comes back as a file of bytes that somebody else chose. */
TEST(closed_fd_reused_by_an_executable_data_file)
{
	int other, file;
	uint8_t *at;

	prepare();
	file = open("/tmp/data", O_RDWR | O_CREAT | O_TRUNC, 0755);
	ASSERT(file >= 0);
	ASSERT_OK(ftruncate(file, 32 * D));
	ASSERT_OK(dup2(file, fd) == fd ? 0 : -1);
	other = device();

	EXPECT_ERR(set_one(fd, stub(&t, 1), CODE, 1), ENOTTY);
	EXPECT_ERR(clear_run(fd, stub(&t, 0), 1), ENOTTY);
	EXPECT_ERR(seal_one(fd, stub(&t, 0)), ENOTTY);
	EXPECT_ERR(info_get(fd, &(struct trampfd_info){}), ENOTTY);
	EXPECT_EQ(call(&t, 0), 100);
	/* Its views are not the device's: the calls know them from one another. */
	at = reserve(2 * D);
	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	ASSERT(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED) != MAP_FAILED);
	EXPECT_ERR(set_one(other, U64(at), CODE, 1), EFAULT);
	EXPECT_ERR(map_code_at(other, at, REG_DEFAULT, MAP_SHARED), EINVAL);
	EXPECT_OK(set_one(other, stub(&t, 1), CODE, 101));
	EXPECT_EQ(call(&t, 1), 101);
	EXPECT_EQ(call(&t, 0), 100);
}

TEST(no_fd_left)
{
	struct rlimit none = { 0, 0 };

	prepare();
	ASSERT_OK(setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_ERR(open(DEVICE, O_RDONLY), EMFILE);
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 101));
	EXPECT_EQ(call(&t, 1), 101);
	EXPECT_OK(try_table(fd, &t));
}

TEST(chroot)
{
	prepare();
	mkdir("/tmp/empty", 0755);
	ASSERT_OK(chroot("/tmp/empty"));
	ASSERT_OK(chdir("/"));
	EXPECT_ERR(open(DEVICE, O_RDONLY), ENOENT);
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 101));
	EXPECT_EQ(call(&t, 1), 101);
	EXPECT_OK(try_table(fd, &t));
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 102));
	EXPECT_EQ(call(&t, 1), 102);
}

/* noexec is the administrator's way to say no: the core refuses PROT_EXEC. */
TEST(noexec_mount)
{
	struct stat st;
	uint8_t *at = reserve(2 * D);

	ASSERT_OK(stat(DEVICE, &st));
	ASSERT_OK(unshare(CLONE_NEWNS));
	ASSERT_OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	mkdir("/tmp/dev", 0755);
	ASSERT_OK(mount("tmpfs", "/tmp/dev", "tmpfs", MS_NOEXEC, ""));
	ASSERT_OK(mknod("/tmp/dev/trampfd", S_IFCHR | 0444, st.st_rdev));
	fd = open("/tmp/dev/trampfd", O_RDONLY);
	ASSERT(fd >= 0);
	EXPECT_OK(info_get(fd, &(struct trampfd_info){}));
	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EPERM);
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_PRIVATE), EPERM);
	/* A code view that was mapped readable only stays so. */
	if (mmap(at, D, PROT_READ, MAP_SHARED | MAP_FIXED, fd, TRAMPFD_OFF_CODE(REG_DEFAULT)) == at)
		EXPECT_ERR(mprotect(at, D, PROT_READ | PROT_EXEC), EACCES);
}

static void send_fd(int sock, int what)
{
	char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &what, sizeof(int));
	ASSERT_EQ(sendmsg(sock, &msg, 0), 1);
}

static int receive_fd(int sock)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	int got;

	ASSERT_EQ(recvmsg(sock, &msg, 0), 1);
	ASSERT(CMSG_FIRSTHDR(&msg));
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return got;
}

TEST(fd_passed_to_another_process_acts_on_the_receiver)
{
	int pair[2];
	pid_t pid;

	/* The receiver is forked before there is a table, so it has none. */
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	pid = fork();
	if (pid == 0) {
		struct table own;
		int got;
		uint64_t senders;

		got = receive_fd(pair[1]);
		ASSERT_EQ(read(pair[1], &senders, 8), 8);
		EXPECT_ERR(set_one(got, senders, CODE_NOT, 1), EFAULT);
		EXPECT_ERR(clear_run(got, senders, 1), EFAULT);
		EXPECT_ERR(seal_one(got, senders), EFAULT);
		EXPECT_ERR(seal_all(got), ENXIO);
		EXPECT_ERR(get_array(got, &(struct trampfd_slot){ senders, 0, 0 }, 1, NULL), EFAULT);
		/* Its own table at the very same address is its own. */
		ASSERT_OK(map_table_at(got, (uint8_t *)senders, REG_DEFAULT, MAP_SHARED, &own));
		EXPECT_OK(set_one(got, senders, CODE, 555));
		EXPECT_EQ(call(&own, 0), 555);
		EXPECT_OK(seal_all(got));
		_exit(0);
	}
	prepare();
	send_fd(pair[0], fd);
	ASSERT_EQ(write(pair[0], &(uint64_t){ stub(&t, 0) }, 8), 8);
	child_done(pid, __FILE__, __LINE__);
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 101));
	EXPECT_EQ(call(&t, 1), 101);
	EXPECT_OK(try_table(fd, &t));
}

TEST(forked_child_uses_the_inherited_fd)
{
	prepare();
	IN_CHILD {
		struct table own;

		EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 201));
		EXPECT_EQ(call(&t, 1), 201);
		own = table(fd);
		EXPECT_OK(set_one(fd, stub(&own, 0), CODE, 300));
		EXPECT_EQ(call(&own, 0), 300);
		close(fd);
	}
	EXPECT_EQ(get_one(fd, stub(&t, 1)).code, 0);
	EXPECT_EQ(call(&t, 0), 100);
}

TEST(other_file_operations_are_refused)
{
	char byte = 0;

	prepare();
	EXPECT_ERR(read(fd, &byte, 1), EINVAL);
	EXPECT_ERR(pread(fd, &byte, 1, 0), EINVAL);
	fd = open(DEVICE, O_RDWR);
	ASSERT(fd >= 0);
	EXPECT_ERR(write(fd, &byte, 1), EINVAL);
	EXPECT_ERR(ftruncate(fd, 0), EINVAL);
	EXPECT_EQ(call(&t, 0), 100);
}

TEST(switched_off_device_cannot_be_opened)
{
	prepare();
	param_set("enabled", 0);
	EXPECT_ERR(open(DEVICE, O_RDONLY), ENODEV);
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 101));
}

TEST(unprivileged_user)
{
	ASSERT_OK(setresgid(65534, 65534, 65534));
	ASSERT_OK(setresuid(65534, 65534, 65534));
	prepare();
	EXPECT_EQ(call(&t, 0), 100);
	EXPECT_ERR(open(DEVICE, O_RDWR), EACCES);
}
