// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What can happen in the life of a process with closures in it, and that each
 * closure still gives what it was made with.
 *
 *	PROGRAM LIBRARY EVENT VALUE BEFORE COUNT
 *
 * LIBRARY is the file that must provide them, the program itself where it is
 * linked in. BEFORE closures are made, EVENT
 * happens, closures are made until there are COUNT, and half of them are
 * dropped and made again.
 *
 * EVENT		what happens; several are divided by commas
 * quiet		nothing
 * lie			one answer is asked for that no closure was made with
 * fork			parent and child each drop theirs and make others
 * daemon		all fds are closed
 * fds			all fds are closed, and become the file VALUE
 * no-fd		no further fd can be opened
 * delete		LIBRARY is deleted
 * same			LIBRARY is replaced by a copy
 * replace		LIBRARY is replaced by another file of its length
 * chroot		VALUE is the root from now on
 * landlock		no file can be opened from now on
 *
 * Exit status: see enum. Nothing is printed where all is well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lives.h"

enum {
	ALL_RIGHT = 0,
	WRONG_ANSWER = 2,
	REFUSED = 3,
	EXECUTABLE_MEMORY = 4,
	SETUP = 5,
	OTHER_LIBRARY = 6,
	LACKS = 77,
};

/* Beyond that closures do not fit on a stack of the usual size. */
#define ON_STACK 100000

static struct closure *closures;	/* grows down, from closures[-1] */
static long made;

__attribute__((noreturn, format(printf, 2, 3)))
static void end(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(status);
}

__attribute__((noreturn))
static void end_setup(const char *what)
{
	int lacks = errno == ENOSYS || errno == EOPNOTSUPP || errno == EPERM;

	end(lacks ? LACKS : SETUP, "%s: %s", what, strerror(errno));
}

/* ---- closures ---------------------------------------------------------- */

/* What number N was made with, the ROUND-th time. */
static long answer(long n, long round)
{
	return n * 64 + round;
}

static void make_until(long count, long round)
{
	for (; made < count; made++)
		if (make(&closures[-made - 1], answer(made, round)))
			end(REFUSED, "closure %ld is refused: %s", made, strerror(errno));
}

static void drop_until(long count)
{
	while (made > count) {
		made--;
		drop(&closures[-made - 1]);
	}
}

static void check(long from, long to, long round)
{
	long n;

	for (n = from; n < to; n++)
		if (!right(&closures[-n - 1], answer(n, round)))
			end(WRONG_ANSWER, "closure %ld of %ld gives something else", n, made);
}

/* ---- mappings ---------------------------------------------------------- */

/* What was executable before there was a closure. */
static struct {
	char device[16];
	unsigned long inode;
} text[64];
static int texts;

static int is_text(const char *device, unsigned long inode)
{
	int n;

	for (n = 0; n < texts; n++)
		if (text[n].inode == inode && !strcmp(text[n].device, device))
			return 1;
	return 0;
}

/*
 * Executable are private mappings of the files that were so from the start,
 * and what the kernel gives each process. None of them can be written.
 */
static void look_at_mappings(int at_start)
{
	const char *proc = getenv("TRAMPFD_PROC");
	int fd = openat(proc ? atoi(proc) : AT_FDCWD,
			proc ? "self/maps" : "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	FILE *maps = fd < 0 ? NULL : fdopen(fd, "r");
	char row[8192];

	if (!maps)
		end(SETUP, "maps: %s", strerror(errno));
	while (fgets(row, sizeof(row), maps)) {
		char mode[5], device[16], name[256] = "";
		unsigned long inode;

		if (sscanf(row, "%*s %4s %*s %15s %lu %255s", mode, device, &inode, name) < 3)
			end(SETUP, "maps: %s", row);
		if (mode[2] != 'x' || !strcmp(name, "[vdso]") || !strcmp(name, "[vsyscall]"))
			continue;
		if (at_start && inode && !is_text(device, inode)) {
			if (texts == sizeof(text) / sizeof(*text))
				end(SETUP, "maps: too many libraries");
			strcpy(text[texts].device, device);
			text[texts++].inode = inode;
		}
		if (mode[1] == 'w' || mode[3] != 'p' || !is_text(device, inode))
			end(EXECUTABLE_MEMORY, "executable: %s", row);
	}
	fclose(maps);
	if (!texts)
		end(SETUP, "maps: no row is executable");
}

/* ---- events ------------------------------------------------------------ */

/* Waits for a child that must end well. */
static void join(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) != child)
		end_setup("waitpid");
	if (WIFSIGNALED(status))
		end(WRONG_ANSWER, "the child ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		end(WEXITSTATUS(status), "in the child");
}

static pid_t fork_or_end(void)
{
	pid_t child = fork();

	if (child < 0)
		end_setup("fork");
	return child;
}

/* Who changes what it has, and then the other looks at its own. */
static void event_fork(long count)
{
	long before = made;
	int go[2];
	pid_t child;
	char byte;

	child = fork_or_end();
	if (!child) {
		check(0, made, 0);
		drop_until(0);
		make_until(count, 1);
		check(0, count, 1);
		exit(ALL_RIGHT);
	}
	join(child);
	check(0, before, 0);

	make_until(count, 0);
	check(0, count, 0);
	if (pipe(go))
		end_setup("pipe");
	child = fork_or_end();
	if (!child) {
		close(go[1]);
		if (read(go[0], &byte, 1) != 0)
			end_setup("read");
		check(0, count, 0);
		drop_until(count / 2);
		make_until(count, 2);
		check(0, count / 2, 0);
		check(count / 2, count, 2);
		exit(ALL_RIGHT);
	}
	drop_until(before);
	make_until(count, 3);
	check(0, before, 0);
	check(before, count, 3);
	close(go[0]);
	close(go[1]);
	join(child);
	check(0, before, 0);
	check(before, count, 3);
	drop_until(before);
}

static void event_daemon(const char *data)
{
	int fd;

	for (fd = 0; fd < 1024; fd++)
		close(fd);
	/* The numbers that a library may have noted. */
	for (fd = 0; data[0] && fd < 64; fd++)
		if (open(data, O_RDONLY) < 0)
			end_setup(data);
}

static void event_no_fd(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		end_setup("getrlimit");
	limit.rlim_cur = 0;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		end_setup("setrlimit");
}

/* Another file under the name LIBRARY, as a package manager puts it there. */
static void event_replace(const char *library, int same)
{
	char beside[4096];
	struct stat stat;
	char *bytes;
	int in, out;

	snprintf(beside, sizeof(beside), "%s.new", library);
	in = open(library, O_RDONLY);
	if (in < 0 || fstat(in, &stat))
		end_setup(library);
	bytes = malloc(stat.st_size);
	if (!bytes || read(in, bytes, stat.st_size) != stat.st_size)
		end_setup(library);
	if (!same)
		memset(bytes, 0xcc, stat.st_size);
	out = open(beside, O_WRONLY | O_CREAT | O_EXCL, 0755);
	if (out < 0 || write(out, bytes, stat.st_size) != stat.st_size)
		end_setup(beside);
	if (rename(beside, library))
		end_setup("rename");
	close(in);
	close(out);
	free(bytes);
}

static void event_landlock(void)
{
	struct landlock_ruleset_attr none = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE |
				     LANDLOCK_ACCESS_FS_READ_FILE |
				     LANDLOCK_ACCESS_FS_READ_DIR |
				     LANDLOCK_ACCESS_FS_WRITE_FILE |
				     LANDLOCK_ACCESS_FS_MAKE_REG,
	};
	int fd = syscall(SYS_landlock_create_ruleset, &none, sizeof(none), 0);

	if (fd < 0)
		end_setup("landlock_create_ruleset");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_landlock_restrict_self, fd, 0))
		end_setup("landlock_restrict_self");
	close(fd);
	if (open("/", O_RDONLY | O_DIRECTORY) >= 0)
		end(SETUP, "landlock forbids nothing");
}

static void happen_one(const char *event, const char *value, const char *library,
		       long count)
{
	if (!strcmp(event, "quiet") || !strcmp(event, "lie"))
		return;
	else if (!strcmp(event, "fork"))
		event_fork(count);
	else if (!strcmp(event, "daemon") || !strcmp(event, "fds"))
		event_daemon(value);
	else if (!strcmp(event, "no-fd"))
		event_no_fd();
	else if (!strcmp(event, "delete") && unlink(library))
		end_setup("unlink");
	else if (!strcmp(event, "delete"))
		return;
	else if (!strcmp(event, "same") || !strcmp(event, "replace"))
		event_replace(library, !strcmp(event, "same"));
	else if (!strcmp(event, "chroot") && (chroot(value) || chdir("/")))
		end_setup("chroot");
	else if (!strcmp(event, "chroot"))
		return;
	else if (!strcmp(event, "landlock"))
		event_landlock();
	else
		end(SETUP, "there is no event %s", event);
}

static void happen(const char *events, const char *value, const char *library,
		   long count)
{
	char list[256], *event, *rest = list;

	snprintf(list, sizeof(list), "%s", events);
	while ((event = strsep(&rest, ",")))
		happen_one(event, value, library, count);
}

/* ---- a life ------------------------------------------------------------ */

/* The file that the library was loaded from is the one that is meant. */
static void look_at_library(const char *path)
{
	const void *address = library();
	struct stat meant, is;
	Dl_info info = { 0 };

	if (!getauxval(AT_BASE))
		/* Linked statically: there is one file. */
		info.dli_fname = (const char *)getauxval(AT_EXECFN);
	else if (!address || !dladdr(address, &info))
		end(OTHER_LIBRARY, "%s is not loaded", path);
	if (stat(path, &meant))
		end(OTHER_LIBRARY, "%s: %s", path, strerror(errno));
	if (stat(info.dli_fname, &is) || is.st_dev != meant.st_dev ||
	    is.st_ino != meant.st_ino)
		end(OTHER_LIBRARY, "%s is loaded, not %s", info.dli_fname, path);
}

static void live(char **words)
{
	const char *path = words[0], *event = words[1], *value = words[2];
	long before = atol(words[3]), count = atol(words[4]);
	/* Where nothing can be opened any more, it was looked at before. */
	int blind = strstr(event, "daemon") || strstr(event, "fds") ||
		    strstr(event, "no-fd") || strstr(event, "landlock");

	look_at_library(path);
	look_at_mappings(1);
	make_until(before, 0);
	check(0, made, 0);
	if (blind)
		look_at_mappings(0);
	happen(event, value, path, count);
	make_until(count, 0);
	check(0, count, !strcmp(event, "lie"));
	drop_until(count / 2);
	make_until(count, 4);
	check(0, count / 2, 0);
	check(count / 2, count, 4);
	if (!blind)
		look_at_mappings(0);
	drop_until(0);
}

int main(int argc, char **argv)
{
	long count;

	if (argc != 6)
		end(SETUP, "usage: %s LIBRARY EVENT VALUE BEFORE COUNT", argv[0]);
	count = atol(argv[5]);
	if (count <= ON_STACK) {
		struct closure on_stack[count + 1];

		closures = on_stack + count;
		live(argv + 1);
	} else {
		struct closure *on_heap = calloc(count, sizeof(*on_heap));

		if (!on_heap)
			end_setup("calloc");
		closures = on_heap + count;
		live(argv + 1);
	}
	return ALL_RIGHT;
}
