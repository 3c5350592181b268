// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Every other door to the memory of a view: what each answers, for views mapped
 * private and shared. After each one the content is what SET made it.
 */
#include "harness.h"

#include <linux/userfaultfd.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef MADV_COLD
#define MADV_COLD		20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#define MADV_GUARD_INSTALL_	102

static const int shares[] = { MAP_SHARED, MAP_PRIVATE };

/* Runs a body for a private and for a shared table t with one live slot, 3. */
#define EACH_SHARE(fd, t)						\
	for (unsigned int i_ = 0; i_ < 2; i_++)				\
		for (struct table t = table_live(fd, shares[i_]); t.code; \
		     expect_intact(fd, &t), t.code = NULL)

static struct table table_live(int fd, int share)
{
	struct table t = table_with(fd, REG_DEFAULT, share);

	ASSERT_OK(set_one(fd, stub(&t, 3), CODE, 33));
	ASSERT_EQ(call(&t, 3), 33);
	return t;
}

static void expect_intact(int fd, struct table *t)
{
	EXPECT_EQ(call(t, 3), 33);
	EXPECT_EQ(get_one(fd, stub(t, 3)).code, CODE);
	EXPECT_EQ(get_one(fd, stub(t, 3)).data, 33);
	EXPECT_EQ(get_one(fd, stub(t, 2)).code, 0);
	EXPECT_EQ(write_signal(t->code), SIGSEGV);
	EXPECT_EQ(write_signal(t->data), SIGSEGV);
	EXPECT_EQ(call_signal(t->data), SIGSEGV);
	unmap_table(t);
}

/* The page of a view as user space sees it. */
static size_t page_size(void)
{
	return geometry()->page_size;
}

TEST(mmap_writable_is_eacces)
{
	const int prots[] = { PROT_WRITE, PROT_READ | PROT_WRITE,
			      PROT_READ | PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC };
	const int modes[] = { O_RDONLY, O_RDWR };
	unsigned int p, s, m;

	for (m = 0; m < 2; m++) {
		int fd = open(DEVICE, modes[m]);	/* root may open it for writing */
		uint8_t *at = reserve(2 * D);

		ASSERT(fd >= 0);
		ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
		for (s = 0; s < 2; s++)
			for (p = 0; p < ARRAY_SIZE(prots); p++) {
				EXPECT_ERR(mmap(NULL, D, prots[p], shares[s], fd,
						TRAMPFD_OFF_DATA), EACCES);
				EXPECT_ERR(mmap(at, D, prots[p], shares[s] | MAP_FIXED, fd,
						TRAMPFD_OFF_CODE(REG_DEFAULT)), EACCES);
				/* MAP_FIXED took the old view away where it failed late. */
			}
		close(fd);
	}
}

TEST(mmap_data_view_executable_is_eacces)
{
	int fd = device();

	EXPECT_ERR(mmap(NULL, D, PROT_EXEC, MAP_SHARED, fd, TRAMPFD_OFF_DATA), EACCES);
	EXPECT_ERR(mmap(NULL, D, PROT_READ | PROT_EXEC, MAP_SHARED, fd, TRAMPFD_OFF_DATA), EACCES);
	EXPECT_ERR(mmap(NULL, D, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, TRAMPFD_OFF_DATA), EACCES);
}

TEST(read_implies_exec_does_not_make_the_data_view_executable)
{
	int fd = device();

	ASSERT(personality(READ_IMPLIES_EXEC) >= 0);
	EXPECT_ERR(mmap(NULL, D, PROT_READ, MAP_SHARED, fd, TRAMPFD_OFF_DATA), EACCES);
	EXPECT_ERR(mmap(NULL, D, PROT_READ, MAP_PRIVATE, fd, TRAMPFD_OFF_DATA), EACCES);
}

/* What /proc/self/maps says of the mapping that starts at @at. */
static bool is_executable(const void *at)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	char line[512], perms[8];
	bool found = false, executable = false;

	ASSERT(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, perms) != 3 || from != U64(at))
			continue;
		found = true;
		executable = perms[2] == 'x';
	}
	fclose(maps);
	ASSERT(found);
	return executable;
}

TEST(read_implies_exec_by_mprotect_does_not_make_the_data_view_executable)
{
	int fd = device();
	struct table t = table_live(fd, MAP_SHARED);

	ASSERT(personality(READ_IMPLIES_EXEC) >= 0);
	/* It adds PROT_EXEC only to what may ever have it. */
	EXPECT_OK(mprotect(t.data, D, PROT_READ));
	EXPECT(is_executable(t.code));
	EXPECT(!is_executable(t.data));
	EXPECT_EQ(call_signal(t.data), SIGSEGV);
	EXPECT_EQ(call(&t, 3), 33);
}

TEST(mprotect_writable_is_eacces)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		uint8_t *views[] = { t.code, t.data };
		int v;

		for (v = 0; v < 2; v++) {
			EXPECT_ERR(mprotect(views[v], D, PROT_WRITE), EACCES);
			EXPECT_ERR(mprotect(views[v], D, PROT_READ | PROT_WRITE), EACCES);
			EXPECT_ERR(mprotect(views[v], D, PROT_READ | PROT_WRITE | PROT_EXEC),
				   EACCES);
		}
		EXPECT_ERR(mprotect(t.data, D, PROT_EXEC), EACCES);
		EXPECT_ERR(mprotect(t.data, D, PROT_READ | PROT_EXEC), EACCES);
	}
}

TEST(mprotect_of_a_whole_view_to_less_and_back)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		EXPECT_OK(mprotect(t.code, D, PROT_READ));
		EXPECT_EQ(call_signal(stub(&t, 3)), SIGSEGV);
		EXPECT_OK(mprotect(t.code, D, PROT_NONE));
		EXPECT_EQ(read_signal(t.code), SIGSEGV);
		EXPECT_ERR(mprotect(t.code, D, PROT_READ | PROT_WRITE), EACCES);
		EXPECT_OK(mprotect(t.code, D, PROT_READ | PROT_EXEC));
		EXPECT_OK(mprotect(t.data, D, PROT_NONE));
		EXPECT_EQ(call_signal(stub(&t, 3)), SIGSEGV);
		EXPECT_ERR(mprotect(t.data, D, PROT_READ | PROT_EXEC), EACCES);
		EXPECT_OK(mprotect(t.data, D, PROT_READ));
	}
}

TEST(partial_changes_are_einval)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		size_t page = page_size();
		uint8_t *views[] = { t.code, t.data };
		const struct { size_t off, len; } parts[] = {
			{ 0, page }, { page, page }, { D - page, page }, { page, D - page },
		};
		unsigned int v, p;

		for (v = 0; v < 2; v++)
			for (p = 0; p < ARRAY_SIZE(parts); p++) {
				uint8_t *at = views[v] + parts[p].off;

				EXPECT_ERR(mprotect(at, parts[p].len, PROT_NONE), EINVAL);
				EXPECT_ERR(munmap(at, parts[p].len), EINVAL);
				/* The core says ENOMEM for any failure here before 6.12. */
				EXPECT_REFUSED(mmap(at, parts[p].len, PROT_READ | PROT_WRITE,
						    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
					       EINVAL, ENOMEM);
			}
		/* From the middle of one view to the middle of the other */
		EXPECT_ERR(munmap(t.code + page, D), EINVAL);
	}
}

TEST(mremap_is_refused)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		uint8_t *views[] = { t.code, t.data }, *to = reserve(4 * D);
		size_t page = page_size();
		int v;

		for (v = 0; v < 2; v++) {
			uint8_t *at = views[v];

			EXPECT_ERR(mremap(at, D, D, MREMAP_MAYMOVE | MREMAP_FIXED, to), EINVAL);
			EXPECT_ERR(mremap(at, D, page, 0), EINVAL);
			EXPECT_ERR(mremap(at, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, to), EINVAL);
			EXPECT_REFUSED(mremap(at, 0, D, MREMAP_MAYMOVE), EINVAL, EFAULT);
			EXPECT_ERR(mremap(at, D, D, MREMAP_MAYMOVE | 4 /* DONTUNMAP */, NULL), EINVAL);
			/* Growing is the core's EFAULT (VM_DONTEXPAND), or ours. */
			EXPECT_REFUSED(mremap(at, D, 2 * D, MREMAP_MAYMOVE), EFAULT, EINVAL);
		}
	}
}

TEST(mremap_does_not_grow_into_free_space)
{
	int fd = device();
	struct table t = table_live(fd, MAP_SHARED);
	size_t page = page_size();
	uint8_t *at = reserve(4 * D);

	ASSERT_OK(munmap(at, 4 * D));
	ASSERT(map_data_at(fd, at, MAP_SHARED) != MAP_FAILED);
	EXPECT_REFUSED(mremap(at, D, D + page, 0), EFAULT, EINVAL);
	EXPECT_EQ(read_signal(at + D), SIGSEGV);
	expect_intact(fd, &t);
}

/* Two views side by side must not become one mapping, which no door would see. */
TEST(neighbouring_views_do_not_merge)
{
	int fd = device();
	uint8_t *at = reserve(6 * D);
	struct table t, u;

	ASSERT_OK(map_table_at(fd, at, REG_DEFAULT, MAP_SHARED, &t));
	ASSERT_OK(map_table_at(fd, at + 2 * D, REG_DEFAULT, MAP_SHARED, &u));
	ASSERT(map_data_at(fd, at + 4 * D, MAP_SHARED) != MAP_FAILED);
	ASSERT(map_data_at(fd, at + 5 * D, MAP_SHARED) != MAP_FAILED);
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 1));
	EXPECT_OK(set_one(fd, stub(&u, 0), CODE, 2));
	EXPECT_EQ(call(&t, 0), 1);
	EXPECT_EQ(call(&u, 0), 2);
	EXPECT_EQ(get_one(fd, stub(&t, 0)).data, 1);
	EXPECT_OK(munmap(at + 5 * D, D));
	EXPECT_OK(munmap(at + 4 * D, D));
	unmap_table(&u);
	EXPECT_EQ(call(&t, 0), 1);
}

TEST(remap_file_pages_is_einval)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		EXPECT_ERR(syscall(SYS_remap_file_pages, t.code, page_size(), 0, 1, 0), EINVAL);
		EXPECT_ERR(syscall(SYS_remap_file_pages, t.data, page_size(), 0, 1, 0), EINVAL);
		EXPECT_ERR(syscall(SYS_remap_file_pages, t.data, D, 0, 0, 0), EINVAL);
	}
}

TEST(madvise_harmless_kinds)
{
	const int kinds[] = { MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
			      MADV_DONTNEED, MADV_COLD, MADV_PAGEOUT, MADV_DONTDUMP };
	int fd = device();
	unsigned int k;

	for (k = 0; k < ARRAY_SIZE(kinds); k++)
		EACH_SHARE(fd, t) {
			/* Whole view, and a page where that splits nothing. */
			if (madvise(t.code, D, kinds[k]) && errno != EINVAL && errno != EBADF)
				fail_at(__FILE__, __LINE__, "code view, advice %d: %s", kinds[k],
					strerror(errno));
			EXPECT_EQ(call(&t, 3), 33);
			if (madvise(t.data, D, kinds[k]) && errno != EINVAL && errno != EBADF)
				fail_at(__FILE__, __LINE__, "data view, advice %d: %s", kinds[k],
					strerror(errno));
			EXPECT_EQ(call(&t, 3), 33);
		}
	EACH_SHARE(fd, t) {
		EXPECT_OK(madvise(t.code, D, MADV_DONTNEED));
		EXPECT_OK(madvise(t.data, D, MADV_DONTNEED));
		EXPECT_OK(madvise(t.code, page_size(), MADV_DONTNEED));
		EXPECT_OK(madvise(t.code, D, MADV_POPULATE_READ));
		EXPECT_OK(madvise(t.data, page_size(), MADV_POPULATE_READ));
	}
}

TEST(madvise_refused_kinds)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		uint8_t *views[] = { t.code, t.data };
		int v;

		for (v = 0; v < 2; v++) {
			EXPECT_ERR(madvise(views[v], D, MADV_FREE), EINVAL);
			EXPECT_ERR(madvise(views[v], D, MADV_WIPEONFORK), EINVAL);
			EXPECT_ERR(madvise(views[v], D, MADV_COLLAPSE), EINVAL);
			EXPECT_ERR(madvise(views[v], D, MADV_POPULATE_WRITE), EINVAL);
			EXPECT_ERR(madvise(views[v], D, MADV_GUARD_INSTALL_), EINVAL);
			EXPECT_ERR(madvise(views[v], page_size(), MADV_GUARD_INSTALL_), EINVAL);
			EXPECT_ERR(madvise(views[v], D, MADV_REMOVE), EACCES);
		}
	}
}

TEST(mlock_is_accepted)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		EXPECT_OK(mlock(t.code, D));
		/* Pages never SET cannot be made present; when all are there, all is well. */
		EXPECT_ERR(mlock(t.data, D), ENOMEM);
		EXPECT_OK(mlock(t.data, page_size()));
		ASSERT_OK(set_run(fd, stub(&t, page_slot(1)),
				  geometry()->slots_per_table - page_slot(1), CODE, 1, 0));
		EXPECT_OK(mlock(t.data, D));
		EXPECT_OK(munlock(t.code, D));
		EXPECT_OK(munlock(t.data, D));
	}
	EXPECT_OK(mlockall(MCL_CURRENT | MCL_FUTURE));
	EACH_SHARE(fd, t)
		EXPECT_EQ(call(&t, 3), 33);
}

TEST(proc_self_mem_reads_and_does_not_write)
{
	int fd = device(), mem = open("/proc/self/mem", O_RDWR);

	ASSERT(mem >= 0);
	EACH_SHARE(fd, t) {
		uint8_t *at[] = { t.code, t.data, t.code + slot_offset(3), t.data + slot_offset(3) };
		uint64_t word = 0x4141414141414141ULL, seen = 0;
		unsigned int i;

		for (i = 0; i < ARRAY_SIZE(at); i++) {
			EXPECT_ERR(pwrite(mem, &word, 8, (off_t)U64(at[i])), EIO);
			EXPECT_EQ(pread(mem, &seen, 8, (off_t)U64(at[i])), 8);
			EXPECT(!memcmp(&seen, at[i], 8));
		}
		EXPECT_EQ(seen, 33);
	}
}

TEST(process_vm_reads_and_does_not_write)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		uint64_t word = 0x4141414141414141ULL, seen = 0;
		struct iovec local = { &word, 8 }, in = { &seen, 8 };
		struct iovec slot = { t.data + slot_offset(3), 8 }, code = { t.code, 8 };

		EXPECT_ERR(process_vm_writev(getpid(), &local, 1, &slot, 1, 0), EFAULT);
		EXPECT_ERR(process_vm_writev(getpid(), &local, 1, &code, 1, 0), EFAULT);
		EXPECT_EQ(process_vm_readv(getpid(), &in, 1, &slot, 1, 0), 8);
		EXPECT_EQ(seen, 33);
		EXPECT_EQ(process_vm_readv(getpid(), &in, 1, &code, 1, 0), 8);
	}
}

TEST(userfaultfd_cannot_serve_a_view)
{
	int fd = device(), uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API };

	if (uffd < 0)
		SKIP("this kernel has no userfaultfd: %s", strerror(errno));
	ASSERT_OK(ioctl(uffd, UFFDIO_API, &api));
	EACH_SHARE(fd, t) {
		struct uffdio_register r = { .range = { U64(t.code), D },
					     .mode = UFFDIO_REGISTER_MODE_MISSING };

		EXPECT_ERR(ioctl(uffd, UFFDIO_REGISTER, &r), EINVAL);
		r.range.start = U64(t.data);
		EXPECT_ERR(ioctl(uffd, UFFDIO_REGISTER, &r), EINVAL);
		r.mode = UFFDIO_REGISTER_MODE_WP;
		EXPECT_ERR(ioctl(uffd, UFFDIO_REGISTER, &r), EINVAL);
	}
}

TEST(system_calls_do_not_write_into_a_view)
{
	int fd = device(), zero = open("/dev/zero", O_RDONLY);

	EACH_SHARE(fd, t) {
		EXPECT_ERR(read(zero, t.data + slot_offset(3), 8), EFAULT);
		EXPECT_ERR(read(zero, t.code, 8), EFAULT);
	}
}

TEST(ptrace_peeks_and_does_not_poke)
{
	int fd = device();

	EACH_SHARE(fd, t) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			ptrace(PTRACE_TRACEME, 0, 0, 0);
			raise(SIGSTOP);
			_exit(call(&t, 3) == 33 ? 0 : 1);
		}
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		ASSERT(WIFSTOPPED(status));
		errno = 0;
		EXPECT_EQ(ptrace(PTRACE_PEEKDATA, pid, t.data + slot_offset(3), 0), 33);
		EXPECT_EQ(errno, 0);
		ptrace(PTRACE_PEEKTEXT, pid, t.code, 0);
		EXPECT_EQ(errno, 0);
		EXPECT_ERR(ptrace(PTRACE_POKEDATA, pid, t.data + slot_offset(3), 66), EIO);
		EXPECT_ERR(ptrace(PTRACE_POKETEXT, pid, t.code, 0xcc), EIO);
		ptrace(PTRACE_CONT, pid, 0, 0);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

TEST(code_view_is_the_same_page_everywhere_and_holds_no_user_bytes)
{
	int fd = device();
	struct table t = table(fd);
	size_t page = page_size(), p;
	uint8_t *first = malloc(page);

	ASSERT(first);
	memcpy(first, t.code, page);
	EXPECT_OK(set_run(fd, stub(&t, 0), geometry()->slots_per_table, CODE,
			  0x9090909090909090ULL, 0));
	for (p = 0; p < D / page; p++)
		CHECK_(!memcmp(first, t.code + p * page, page), , "code page %zu differs", p);
}

/* The diagnosis of a call through a slot that is empty: pc or data names the slot. */
static bool names_slot(const struct caught *c, const struct table *t, unsigned int i)
{
	uint64_t at = stub(t, i);

	return (c->pc >= at && c->pc < at + SLOT_STRIDE) || context_data(&c->uc) == at;
}

TEST(empty_and_cleared_slots_trap_and_name_themselves)
{
	int fd = device();
	struct table t = table(fd);
	unsigned int spp = geometry()->slots_per_page, i;
	struct caught c;

	/* One live slot brings its page; all others there are empty. */
	EXPECT_OK(set_one(fd, stub(&t, 5), CODE, 1));
	for (i = 0; i < spp; i++) {
		if (i == 5)
			continue;
		EXPECT_EQ(catch_signal(do_call, (void *)stub(&t, i), &c), SIGILL);
		CHECK_(names_slot(&c, &t, i), , "empty slot %u: pc %#lx", i, c.pc);
		/* The trap lies in the code view, not where a user could put something. */
		EXPECT(c.pc >= U64(t.code) && c.pc < U64(t.code) + D);
	}
	EXPECT_OK(set_run(fd, stub(&t, page_slot(4)), spp, CODE, 8, 0));
	EXPECT_OK(clear_run(fd, stub(&t, page_slot(4)), spp));
	for (i = page_slot(4); i < page_slot(5); i++) {
		EXPECT_EQ(catch_signal(do_call, (void *)stub(&t, i), &c), SIGILL);
		CHECK_(names_slot(&c, &t, i), , "cleared slot %u: pc %#lx", i, c.pc);
	}
	EXPECT_EQ(call(&t, 5), 1);
}

TEST(pages_never_set_are_sigbus)
{
	int fd = device();
	struct table t = table(fd);
	unsigned int page;

	EXPECT_OK(set_one(fd, stub(&t, page_slot(2)), CODE, 1));
	for (page = 0; page < D / page_size(); page++) {
		if (page == 2)
			continue;
		EXPECT_EQ(read_signal(t.data + page * page_size()), SIGBUS);
		EXPECT_EQ(call_signal(stub(&t, page_slot(page))), SIGBUS);
	}
	EXPECT_EQ(call(&t, page_slot(2)), 1);
}

/* Where hardware lets data be read from elsewhere, a fork would share it: see fork.c. */
TEST(views_show_their_device_in_maps)
{
	int fd = device();
	struct table t = table(fd);
	char line[512], perms[8], path[256];
	unsigned long from, to;
	unsigned int seen = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	ASSERT(maps);
	while (fgets(line, sizeof(line), maps)) {
		path[0] = 0;
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &from, &to, perms, path) < 3)
			continue;
		EXPECT(!strchr(perms, 'w') || !strchr(perms, 'x'));
		if (from == U64(t.code)) {
			EXPECT_EQ(to, U64(t.code) + D);
			EXPECT(!strncmp(perms, "r-x", 3) && !strcmp(path, DEVICE));
			seen |= 1;
		}
		if (from == U64(t.data)) {
			EXPECT_EQ(to, U64(t.data) + D);
			EXPECT(!strncmp(perms, "r--", 3) && !strcmp(path, DEVICE));
			seen |= 2;
		}
	}
	EXPECT_EQ(seen, 3);
}
