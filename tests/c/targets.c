// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What SET accepts as code. Built three times: for the default policy, for
 * strict_vma=1 (-DSTRICT) and for relaxed=1 (-DRELAXED); the .params files
 * beside set the parameters.
 */
#include "harness.h"

#include <linux/perf_event.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

#ifdef STRICT
#define STRICT_VMA 1
#else
#define STRICT_VMA 0
#endif
#ifdef RELAXED
#define IS_RELAXED 1
#else
#define IS_RELAXED 0
#endif

#define FILE_PAGES	4

static int fd;
static struct table t;
static long page;

static void prepare(void)
{
	fd = device();
	t = table(fd);
	page = geometry()->page_size;
}

static void expect_allowed_at(int line, uint64_t code)
{
	if (set_one(fd, stub(&t, 0), code, 42)) {
		fail_at(__FILE__, line, "refused: %s", strerror(errno));
		return;
	}
	CHECK_(call(&t, 0) == 42, , "line %d: wrong answer", line);
	EXPECT_OK(clear_run(fd, stub(&t, 0), 1));
}

static void expect_eperm_at(int line, uint64_t code)
{
	struct trampfd_slot *before = snapshot(fd, &t);
	int r = set_one(fd, stub(&t, 0), code, 42), err = errno;

	if (r != -1 || err != EPERM)
		fail_at(__FILE__, line, "expected EPERM, got %d (%s)", r, r ? strerror(err) : "");
	r = set_run(fd, stub(&t, 0), 2, code, 42, 8), err = errno;
	if (r != -1 || err != EPERM)
		fail_at(__FILE__, line, "strided: expected EPERM, got %d (%s)", r,
			r ? strerror(err) : "");
	EXPECT_UNCHANGED(fd, &t, before);
	clear_run(fd, stub(&t, 0), 2);
	free(before);
}

#define ALLOWED(p)	expect_allowed_at(__LINE__, U64(p))
#define REFUSED(p)	expect_eperm_at(__LINE__, U64(p))
/* Refused by default and strictly, accepted by relaxed=1. */
#define JIT_ONLY(p)	(IS_RELAXED ? ALLOWED(p) : REFUSED(p))
/* Accepted unless strict_vma=1. */
#define NOT_STRICT(p)	(STRICT_VMA ? REFUSED(p) : ALLOWED(p))

/* FILE_PAGES pages, give_data at the start of each. */
static void write_text(int to)
{
	int i;

	ASSERT_OK(ftruncate(to, FILE_PAGES * page));
	for (i = 0; i < FILE_PAGES; i++)
		ASSERT_EQ(pwrite(to, give_data_bytes, sizeof(give_data_bytes), i * page),
			  sizeof(give_data_bytes));
}

static void make_file(const char *path)
{
	int out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0755);

	ASSERT(out >= 0);
	write_text(out);
	close(out);
}

static uint8_t *map_file(int from, int prot, int share)
{
	uint8_t *p = mmap(NULL, FILE_PAGES * page, prot, share, from, 0);

	ASSERT(p != MAP_FAILED);
	return p;
}

/* A file of text, mapped private R-X from an fd that is closed again. */
static uint8_t *map_text(const char *path)
{
	int in = open(path, O_RDONLY);
	uint8_t *p;

	ASSERT(in >= 0);
	p = map_file(in, PROT_READ | PROT_EXEC, MAP_PRIVATE);
	close(in);
	return p;
}

TEST(own_text_static)
{
	prepare();
	ALLOWED(CODE);
	/* Any address inside text, entry or not. */
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE + 1, 1));
}

TEST(policy_is_what_this_program_was_built_for)
{
	struct trampfd_info info;

	prepare();
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(!!(info.policy & TRAMPFD_POLICY_STRICT_VMA), STRICT_VMA);
	EXPECT_EQ(!!(info.policy & TRAMPFD_POLICY_RELAXED), IS_RELAXED);
}

TEST(no_text_at_all)
{
	static uint64_t word = 0xc3;
	uint8_t *gone = reserve(D);

	prepare();
	ASSERT_OK(munmap(gone, D));
	REFUSED(0);
	REFUSED(0x1000);
	REFUSED(gone);
	REFUSED(reserve(D));
	REFUSED(&word);
	REFUSED(&page);
	REFUSED("rodata");
	REFUSED(t.data);
}

TEST(binary_of_the_initramfs)
{
	uint8_t *p;
	int in = open("/proc/self/exe", O_RDONLY);

	/* The program itself runs from there; here its file by another mapping. */
	prepare();
	ASSERT(in >= 0);
	p = mmap(NULL, D, PROT_READ | PROT_EXEC, MAP_PRIVATE, in, 0);
	ASSERT(p != MAP_FAILED);
	EXPECT_OK(set_one(fd, stub(&t, 0), U64(p), 1));
	close(in);
}

TEST(private_file)
{
	prepare();
	make_file("/tmp/text");
	ALLOWED(map_text("/tmp/text"));
	ALLOWED(map_text("/tmp/text") + (FILE_PAGES - 1) * page);
}

TEST(deleted_file)
{
	uint8_t *p;

	prepare();
	make_file("/tmp/deleted");
	p = map_text("/tmp/deleted");
	ASSERT_OK(unlink("/tmp/deleted"));
	ALLOWED(p);
}

TEST(shared_file_mapping)
{
	int in;

	prepare();
	make_file("/tmp/shared");
	in = open("/tmp/shared", O_RDONLY);
	ASSERT(in >= 0);
	/* The core drops VM_SHARED from a mapping of a read-only fd: it cannot be written. */
	ALLOWED(map_file(in, PROT_READ | PROT_EXEC, MAP_SHARED));
	close(in);
}

TEST(shared_mapping_of_a_writable_fd)
{
	uint8_t *p;
	int rw;

	prepare();
	make_file("/tmp/shared_rw");
	rw = open("/tmp/shared_rw", O_RDWR);
	ASSERT(rw >= 0);
	p = map_file(rw, PROT_READ | PROT_EXEC, MAP_SHARED);
	JIT_ONLY(p);
	/* mprotect could make it writable at any time, fd or no fd. */
	close(rw);
	JIT_ONLY(p);
}

TEST(not_executable_mapping)
{
	int in;

	prepare();
	make_file("/tmp/noexec");
	in = open("/tmp/noexec", O_RDONLY);
	ASSERT(in >= 0);
	REFUSED(map_file(in, PROT_READ, MAP_PRIVATE));
	REFUSED(map_file(in, PROT_NONE, MAP_PRIVATE));
}

TEST(writable_mapping)
{
	int in;

	prepare();
	make_file("/tmp/writable");
	in = open("/tmp/writable", O_RDONLY);
	ASSERT(in >= 0);
	REFUSED(map_file(in, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE));
	REFUSED(mmap(NULL, page, PROT_READ | PROT_WRITE | PROT_EXEC,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static int copy_program(const char *to)
{
	int in = open("/proc/self/exe", O_RDONLY), out = open(to, O_WRONLY | O_CREAT, 0755), r;
	struct stat st;

	if (in < 0 || out < 0 || fstat(in, &st))
		return -1;
	r = sendfile(out, in, NULL, st.st_size) == st.st_size ? 0 : -1;
	close(in);
	close(out);
	return r;
}

TEST(overlayfs)
{
	uint8_t *p;
	int rw;

	prepare();
	mkdir("/tmp/ovl", 0755);
	if (mount("tmpfs", "/tmp/ovl", "tmpfs", 0, "") ||
	    mkdir("/tmp/ovl/lower", 0755) || mkdir("/tmp/ovl/upper", 0755) ||
	    mkdir("/tmp/ovl/work", 0755) || mkdir("/tmp/ovl/merged", 0755))
		ASSERT(!"making the folders of the overlay");
	make_file("/tmp/ovl/lower/text");
	if (mount("overlay", "/tmp/ovl/merged", "overlay", 0,
		  "lowerdir=/tmp/ovl/lower,upperdir=/tmp/ovl/upper,workdir=/tmp/ovl/work")) {
		int err = errno;

		umount2("/tmp/ovl", MNT_DETACH);
		if (err == ENODEV)
			SKIP("this kernel has no overlay file system loaded");
		ASSERT(!"mounting the overlay");
	}
	p = map_text("/tmp/ovl/merged/text");
	ALLOWED(p);
	/* A program that itself runs from there */
	ASSERT_OK(copy_program("/tmp/ovl/lower/program"));
	IN_CHILD {
		execl("/tmp/ovl/merged/program", "targets", "--exec", "own_text_static", NULL);
		_exit(9);
	}
	/* Copied up and open for writing: a new mapping is of the file being written. */
	rw = open("/tmp/ovl/merged/text", O_RDWR);
	ASSERT(rw >= 0);
	p = map_text("/tmp/ovl/merged/text");
	JIT_ONLY(p);
	close(rw);
	ALLOWED(p);
	/* Opened for writing behind the overlay's back, in the upper layer. */
	rw = open("/tmp/ovl/upper/text", O_RDWR);
	ASSERT(rw >= 0);
	JIT_ONLY(p);
	close(rw);
	ALLOWED(p);
	umount2("/tmp/ovl/merged", MNT_DETACH);
	umount2("/tmp/ovl", MNT_DETACH);
}

TEST(vdso)
{
	uint8_t *vdso = (uint8_t *)getauxval(AT_SYSINFO_EHDR);

	prepare();
	ASSERT(vdso);
	/* It runs nothing sensible: only the answer of SET counts. */
	if (IS_RELAXED)
		EXPECT_OK(set_one(fd, stub(&t, 0), U64(vdso), 1));
	else
		REFUSED(vdso);
}

TEST(anonymous_rx)
{
	uint8_t *p;

	prepare();
	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(p != MAP_FAILED);
	memcpy(p, give_data_bytes, sizeof(give_data_bytes));
	ASSERT_OK(mprotect(p, page, PROT_READ | PROT_EXEC));
	JIT_ONLY(p);
	/* Never written: no page is there at all. */
	p = mmap(NULL, page, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(p != MAP_FAILED);
	if (!IS_RELAXED)
		REFUSED(p);
	p = mmap(NULL, page, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT(p != MAP_FAILED);
	if (!IS_RELAXED)
		REFUSED(p);
}

/* A private file mapping that was written before it became executable. */
TEST(private_copy_of_a_file_page)
{
	uint8_t *p;
	int in;

	prepare();
	make_file("/tmp/copied");
	in = open("/tmp/copied", O_RDONLY);
	ASSERT(in >= 0);
	p = map_file(in, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	*(volatile uint8_t *)(p + page + 100) = 1;	/* page 1 becomes ours */
	ASSERT_OK(mprotect(p, FILE_PAGES * page, PROT_READ | PROT_EXEC));
	JIT_ONLY(p + page);
	NOT_STRICT(p);
	NOT_STRICT(p + 2 * page);
}

static int memfd(void)
{
	int m = memfd_create("text", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ASSERT(m >= 0);
	write_text(m);
	return m;
}

static int reopen(int m, int mode)
{
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", m);
	r = open(path, mode);
	ASSERT(r >= 0);
	return r;
}

/*
 * The kernel does not count the fd that memfd_create answers as a writer of its
 * inode; whoever asks only inode_is_open_for_write() misses it.
 */
TEST(memfd_private_with_its_fd_open)
{
	int m;

	prepare();
	m = memfd();
	JIT_ONLY(map_file(m, PROT_READ | PROT_EXEC, MAP_PRIVATE));
	JIT_ONLY(map_file(reopen(m, O_RDONLY), PROT_READ | PROT_EXEC, MAP_PRIVATE));
}

TEST(memfd_private_with_its_fd_in_another_process)
{
	struct turns turns;
	uint8_t *p;
	pid_t pid;
	int m, ro;

	prepare();
	turns_make(&turns);
	m = memfd();
	ro = reopen(m, O_RDONLY);
	pid = fork();
	if (pid == 0) {
		wait_turn(turns.down);
		_exit(0);
	}
	close(m);
	p = map_file(ro, PROT_READ | PROT_EXEC, MAP_PRIVATE);
	close(ro);
	JIT_ONLY(p);
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
}

TEST(memfd_private_reopened_for_writing)
{
	int m, rw, ro;
	uint8_t *p;

	prepare();
	m = memfd();
	ro = reopen(m, O_RDONLY);
	rw = reopen(m, O_RDWR);
	close(m);
	p = map_file(ro, PROT_READ | PROT_EXEC, MAP_PRIVATE);
	close(ro);
	JIT_ONLY(p);
	close(rw);
}

TEST(memfd_private_with_a_writable_alias)
{
	uint8_t *p, *alias;
	int m, ro;

	prepare();
	m = memfd();
	alias = map_file(m, PROT_READ | PROT_WRITE, MAP_SHARED);
	ro = reopen(m, O_RDONLY);
	close(m);
	p = map_file(ro, PROT_READ | PROT_EXEC, MAP_PRIVATE);
	close(ro);
	JIT_ONLY(p);
	ASSERT_OK(munmap(alias, FILE_PAGES * page));
}

TEST(file_with_a_writable_alias)
{
	uint8_t *p, *alias;
	int rw;

	prepare();
	make_file("/tmp/alias");
	rw = open("/tmp/alias", O_RDWR);
	ASSERT(rw >= 0);
	alias = map_file(rw, PROT_READ | PROT_WRITE, MAP_SHARED);
	p = map_text("/tmp/alias");
	close(rw);
	JIT_ONLY(p);
	ASSERT_OK(munmap(alias, FILE_PAGES * page));
	ALLOWED(p);
}

TEST(memfd_shared)
{
	uint8_t *p;
	int m;

	prepare();
	m = memfd();
	p = map_file(m, PROT_READ | PROT_EXEC, MAP_SHARED);
	JIT_ONLY(p);
	/* The mapping may be made writable again, whoever has the fd. */
	close(m);
	JIT_ONLY(p);
}

#define SEALED	(F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

TEST(memfd_shared_and_sealed)
{
	int m;

	prepare();
	m = memfd();
	ASSERT_OK(fcntl(m, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	JIT_ONLY(map_file(m, PROT_READ | PROT_EXEC, MAP_SHARED));
}

TEST(memfd_sealed_with_all_writers_gone)
{
	uint8_t *p;
	int m, ro;

	prepare();
	m = memfd();
	ASSERT_OK(fcntl(m, F_ADD_SEALS, SEALED));
	ro = reopen(m, O_RDONLY);
	close(m);
	p = map_file(ro, PROT_READ | PROT_EXEC, MAP_PRIVATE);
	close(ro);
	ALLOWED(p);
}

/* F_SEAL_FUTURE_WRITE leaves old writable mappings: they have to be gone. */
TEST(memfd_sealed_for_the_future)
{
	uint8_t *p, *alias;
	int m, ro;

	prepare();
	m = memfd();
	alias = map_file(m, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_OK(fcntl(m, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW |
			F_SEAL_SEAL));
	ro = reopen(m, O_RDONLY);
	close(m);
	p = map_file(ro, PROT_READ | PROT_EXEC, MAP_PRIVATE);
	close(ro);
	JIT_ONLY(p);
	ASSERT_OK(munmap(alias, FILE_PAGES * page));
	ALLOWED(p);
}

TEST(file_open_for_writing)
{
	uint8_t *p;
	int rw;

	prepare();
	make_file("/tmp/written");
	p = map_text("/tmp/written");
	ALLOWED(p);
	rw = open("/tmp/written", O_WRONLY);
	ASSERT(rw >= 0);
	JIT_ONLY(p);
	close(rw);
	ALLOWED(p);
}

TEST(file_open_for_writing_in_another_process)
{
	struct turns turns;
	uint8_t *p;
	pid_t pid;

	prepare();
	turns_make(&turns);
	make_file("/tmp/written2");
	p = map_text("/tmp/written2");
	pid = fork();
	if (pid == 0) {
		ASSERT(open("/tmp/written2", O_RDWR) >= 0);
		signal_turn(turns.up);
		wait_turn(turns.down);
		_exit(0);
	}
	wait_turn(turns.up);
	JIT_ONLY(p);
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
	ALLOWED(p);
}

/* A stub is no target, whatever the policy: neither of the own table nor of another. */
TEST(trampfd_view)
{
	struct table u;

	prepare();
	u = table(fd);
	ASSERT_OK(set_one(fd, stub(&u, 0), CODE, 1));
	REFUSED(stub(&u, 0));
	REFUSED(stub(&t, 5));
	REFUSED(u.data);
}

/* --- uprobes ------------------------------------------------------------ */

static int uprobe_at(const char *path, uint64_t offset)
{
	struct perf_event_attr attr = { .size = sizeof(attr) };
	FILE *f = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
	unsigned int type;
	int r;

	if (!f)
		SKIP("this kernel has no uprobes");
	ASSERT_EQ(fscanf(f, "%u", &type), 1);
	fclose(f);
	attr.type = type;
	attr.config1 = U64(path);
	attr.config2 = offset;
	r = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	ASSERT(r >= 0);
	return r;
}

TEST(uprobe)
{
	uint8_t *p;
	int probe;

	prepare();
	make_file("/tmp/probed");
	p = map_text("/tmp/probed");
	ALLOWED(p + page);
	probe = uprobe_at("/tmp/probed", page);
	/* The break point is there, by a private copy of page 1. */
	EXPECT_EQ(p[page], 0xcc);
	JIT_ONLY(p + page + 4);
	NOT_STRICT(p);
	NOT_STRICT(p + 2 * page);
	close(probe);
	/* Other files are none of its business. */
	ALLOWED(CODE);
}

TEST(uprobe_before_the_mapping)
{
	uint8_t *p;
	int probe;

	prepare();
	make_file("/tmp/probed2");
	probe = uprobe_at("/tmp/probed2", page);
	p = map_text("/tmp/probed2");
	EXPECT_EQ(p[page], 0xcc);
	JIT_ONLY(p + page + 4);
	NOT_STRICT(p);
	close(probe);
}
