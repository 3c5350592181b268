// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Limits: the cgroup's, the user's, and the guard of the shared code page. */
#include "harness.h"

#define UID		65534
#define OTHER_UID	65533

/* --- cgroups and the kernel's log --------------------------------------- */

static char group[128];

static void group_file(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", group, name);
}

static void group_write(const char *name, const char *value)
{
	char path[192];
	int f;

	group_file(path, sizeof(path), name);
	f = open(path, O_WRONLY);
	ASSERT(f >= 0);
	ASSERT_EQ(write(f, value, strlen(value)), (ssize_t)strlen(value));
	close(f);
}

static unsigned long long group_number(const char *name, const char *key)
{
	char path[192], line[128];
	unsigned long long value = 0;
	FILE *f;

	group_file(path, sizeof(path), name);
	f = fopen(path, "r");
	ASSERT(f);
	while (fgets(line, sizeof(line), f)) {
		if (!key)
			value = strtoull(line, NULL, 10);
		else if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ' ')
			value = strtoull(line + strlen(key), NULL, 10);
	}
	fclose(f);
	return value;
}

/* A cgroup of its own for this process and its children. */
static void enter_group(void)
{
	char line[512], root[256] = "", path[300], me[32];
	FILE *mounts = fopen("/proc/mounts", "r");
	int f;

	ASSERT(mounts);
	while (fgets(line, sizeof(line), mounts))
		if (sscanf(line, "%*s %255s %31s", root, me) == 2 && !strcmp(me, "cgroup2"))
			break;
		else
			root[0] = 0;
	fclose(mounts);
	ASSERT(root[0]);
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", root);
	f = open(path, O_WRONLY);
	ASSERT(f >= 0);
	ASSERT_EQ(write(f, "+memory", 7), 7);
	close(f);
	snprintf(group, sizeof(group), "%.64s/trampfd-test-%d", root, getpid());
	ASSERT_OK(mkdir(group, 0755));
	snprintf(me, sizeof(me), "%d", getpid());
	group_write("cgroup.procs", me);
}

static void limit_to(unsigned long long bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", bytes);
	group_write("memory.max", text);
}

static int log_from_now(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	ASSERT(log >= 0);
	lseek(log, 0, SEEK_END);
	return log;
}

static void expect_clean_log(int log)
{
	static const char *const bad[] = { "ut of memory", "oom", "WARNING", "BUG",
					   "allocation failure", "Call Trace", "UBSAN" };
	char record[8192];
	unsigned int i;
	ssize_t n;

	while ((n = read(log, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		if (n < 0)
			continue;
		record[n] = 0;
		for (i = 0; i < ARRAY_SIZE(bad); i++)
			CHECK_(!strstr(record, bad[i]), , "kernel log: %s", record);
	}
}

#define TABLES	64

/* TABLES tables, each with one page in the page tables. */
static void many_tables(int fd, struct table *all)
{
	unsigned int i;

	for (i = 0; i < TABLES; i++) {
		all[i] = table(fd);
		ASSERT_OK(set_one(fd, stub(&all[i], 0), CODE, i));
		ASSERT_EQ(call(&all[i], 0), i);
	}
}

TEST(set_at_memory_max_is_enomem_and_changes_nothing)
{
	static struct table all[TABLES];
	unsigned int n = geometry()->slots_per_table, i, k;
	struct trampfd_info before, after;
	struct trampfd_slot *slots;
	int fd = device(), log;

	enter_group();
	many_tables(fd, all);
	log = log_from_now();
	/* Room for a few whole tables, far from all: 512 KiB of slots in each. */
	limit_to(group_number("memory.current", NULL) + (4 << 20));
	for (i = 0; i < TABLES; i++) {
		ASSERT_OK(info_get(fd, &before));
		/* All slots of the table but the first page's, at once. */
		if (set_run(fd, stub(&all[i], page_slot(1)), n - page_slot(1), CODE, 7, 0))
			break;
	}
	EXPECT_EQ(errno, ENOMEM);
	EXPECT(i > 1 && i < TABLES);
	ASSERT_OK(info_get(fd, &after));
	EXPECT_EQ(after.user_pages, before.user_pages);
	for (k = 1; k < D / geometry()->page_size; k++)
		EXPECT_EQ(read_signal(all[i].data + k * geometry()->page_size), SIGBUS);
	/* What was bound goes on; nobody was killed. */
	EXPECT_EQ(call(&all[0], n - 1), 7);
	EXPECT_EQ(call(&all[i], 0), i);
	EXPECT_EQ(group_number("memory.events", "oom_kill"), 0);

	group_write("memory.max", "max");
	slots = snapshot(fd, &all[i]);
	EXPECT_EQ(slots[0].data, i);
	for (k = 1; k < n; k++)
		if (slots[k].code || slots[k].data)
			fail_at(__FILE__, __LINE__, "slot %u changed", k);
	EXPECT_OK(set_run(fd, stub(&all[i], page_slot(1)), n - page_slot(1), CODE, 7, 0));
	EXPECT_EQ(call(&all[i], n - 1), 7);
	expect_clean_log(log);
}

TEST(slots_are_charged_to_the_cgroup)
{
	static struct table all[TABLES];
	unsigned int n = geometry()->slots_per_table, i;
	unsigned long long before, with;
	int fd = device();

	enter_group();
	many_tables(fd, all);
	before = group_number("memory.current", NULL);
	for (i = 0; i < 16; i++)
		ASSERT_OK(set_run(fd, stub(&all[i], page_slot(1)), n - page_slot(1), CODE, 7, 0));
	with = group_number("memory.current", NULL);
	/* 16 tables of 127 pages; memory.current may lag by the batch of each CPU. */
	CHECK_(with >= before + 15 * (D - geometry()->page_size), ,
	       "memory.current rose by %llu only", with - before);
	for (i = 0; i < TABLES; i++)
		unmap_table(&all[i]);
	with = group_number("memory.current", NULL);
	CHECK_(with < before + (1 << 20), , "memory.current stayed at %llu of %llu", with, before);
}

TEST(unset_slots_touched_at_memory_max)
{
	static struct table all[TABLES];
	unsigned int i, page;
	int fd = device(), log;

	enter_group();
	many_tables(fd, all);
	log = log_from_now();
	limit_to(group_number("memory.current", NULL) + 4096);
	for (i = 0; i < TABLES; i++)
		for (page = 1; page < D / geometry()->page_size; page++) {
			uint8_t *at = all[i].data + page * geometry()->page_size;

			if (read_signal(at) != SIGBUS)
				fail_at(__FILE__, __LINE__, "table %u, page %u: no SIGBUS", i, page);
			if (call_signal(stub(&all[i], page_slot(page))) != SIGBUS)
				fail_at(__FILE__, __LINE__, "stub %u, page %u: no SIGBUS", i, page);
		}
	EXPECT_EQ(group_number("memory.events", "oom_kill"), 0);
	group_write("memory.max", "max");
	for (i = 0; i < TABLES; i++)
		EXPECT_EQ(call(&all[i], 0), i);
	expect_clean_log(log);
}

/* The first change after a fork copies: that, too, can find no memory. */
TEST(unshare_at_memory_max_is_enomem_and_changes_nothing)
{
	static struct table all[TABLES];
	unsigned int n = geometry()->slots_per_table, i, refused = 0;
	int fd = device(), log;

	enter_group();
	many_tables(fd, all);
	for (i = 0; i < 24; i++)
		ASSERT_OK(set_run(fd, stub(&all[i], page_slot(1)), n - page_slot(1), CODE, 7, 0));
	log = log_from_now();
	IN_CHILD {
		/* The child has touched what it will touch. */
		for (i = 0; i < 24; i++)
			EXPECT_EQ(call(&all[i], n - 1), 7);
		limit_to(group_number("memory.current", NULL) + (3 << 20));
		for (i = 0; i < 24; i++) {
			if (!clear_run(fd, stub(&all[i], 0), n))
				continue;
			refused++;
			EXPECT_EQ(errno, ENOMEM);
			EXPECT_EQ(get_one(fd, stub(&all[i], n - 1)).data, 7);
			EXPECT_EQ(get_one(fd, stub(&all[i], 0)).data, i);
			break;
		}
		EXPECT_EQ(refused, 1);
		group_write("memory.max", "max");
		if (i < 24) {
			EXPECT_EQ(call(&all[i], n - 1), 7);
			EXPECT_OK(clear_run(fd, stub(&all[i], 0), n));
			EXPECT_EQ(call_signal(stub(&all[i], n - 1)), SIGILL);
		}
	}
	EXPECT_EQ(group_number("memory.events", "oom_kill"), 0);
	for (i = 0; i < 24; i++)
		EXPECT_EQ(call(&all[i], n - 1), 7);
	expect_clean_log(log);
}

/* --- the user's limits --------------------------------------------------- */

static void become(uid_t uid)
{
	ASSERT_OK(setresgid(uid, uid, uid));
	ASSERT_OK(setresuid(uid, uid, uid));
}

TEST(edquot_for_views)
{
	int fd = device();
	struct table t[3];
	struct trampfd_info info;
	uint8_t *at = reserve(2 * D);

	param_set("max_views", 5);
	become(UID);
	ASSERT_OK(try_table(fd, &t[0]));
	ASSERT_OK(try_table(fd, &t[1]));
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.max_views, 5);
	EXPECT_EQ(info.user_views, 4);
	/* The fifth view fits, the sixth does not. */
	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	EXPECT_ERR(map_code_at(fd, at, REG_DEFAULT, MAP_SHARED), EDQUOT);
	EXPECT_ERR(mmap(NULL, D, PROT_READ, MAP_SHARED, fd, TRAMPFD_OFF_DATA), EDQUOT);
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_views, 5);
	EXPECT_OK(munmap(at + D, D));
	unmap_table(&t[0]);
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_views, 2);
	ASSERT_OK(try_table(fd, &t[2]));
	EXPECT_OK(set_one(fd, stub(&t[2], 0), CODE, 5));
	EXPECT_EQ(call(&t[2], 0), 5);
}

TEST(edquot_for_pages_changes_nothing)
{
	int fd = device();
	unsigned int spp = geometry()->slots_per_page;
	struct trampfd_info info;
	struct trampfd_slot *before, e[2];
	struct table t;

	param_set("max_pages", 3);
	become(UID);
	t = table(fd);
	EXPECT_OK(set_run(fd, stub(&t, 0), spp, CODE, 1, 0));
	before = snapshot(fd, &t);
	/* Three more are one too many, all or nothing. */
	EXPECT_ERR(set_run(fd, stub(&t, page_slot(1)), 3 * spp, CODE, 1, 0), EDQUOT);
	e[0] = (struct trampfd_slot){ stub(&t, page_slot(5)), CODE, 1 };
	EXPECT_UNCHANGED(fd, &t, before);
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_pages, 1);
	EXPECT_EQ(info.max_pages, 3);
	EXPECT_OK(set_array(fd, e, 1, NULL));
	EXPECT_OK(set_one(fd, stub(&t, page_slot(7)), CODE, 1));
	free(before);
	before = snapshot(fd, &t);
	e[0] = (struct trampfd_slot){ stub(&t, page_slot(5) + 1), CODE, 1 };
	e[1] = (struct trampfd_slot){ stub(&t, page_slot(9)), CODE, 1 };
	EXPECT_ERR(set_array(fd, e, 2, NULL), EDQUOT);
	EXPECT_UNCHANGED(fd, &t, before);
	EXPECT_EQ(read_signal(t.data + 9 * geometry()->page_size), SIGBUS);
	/* In a page that is there, there is room. */
	EXPECT_OK(set_array(fd, e, 1, NULL));
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_pages, 3);
	unmap_table(&t);
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_pages, 0);
	EXPECT_EQ(info.user_views, 0);
}

/* fork: the copy that the first change makes counts, too. */
TEST(edquot_for_the_copy_after_fork)
{
	int fd = device();
	struct trampfd_info info;
	struct table t;

	param_set("max_pages", 3);
	become(UID);
	t = table(fd);
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 1));
	EXPECT_OK(set_one(fd, stub(&t, page_slot(1)), CODE, 2));
	IN_CHILD {
		EXPECT_OK(clear_run(fd, stub(&t, 0), 1));
		ASSERT_OK(info_get(fd, &info));
		EXPECT_EQ(info.user_pages, 3);
		EXPECT_ERR(clear_run(fd, stub(&t, page_slot(1)), 1), EDQUOT);
		EXPECT_EQ(call(&t, page_slot(1)), 2);
	}
	EXPECT_EQ(call(&t, 0), 1);
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_pages, 2);
	EXPECT_EQ(info.user_views, 2);
}

TEST(limits_are_of_the_user_not_of_the_process)
{
	struct turns turns;
	pid_t pid;
	int fd = device();

	turns_make(&turns);
	param_set("max_views", 4);
	pid = fork();
	if (pid == 0) {
		become(UID);
		table(fd);
		signal_turn(turns.up);
		wait_turn(turns.down);
		_exit(0);
	}
	wait_turn(turns.up);
	IN_CHILD {
		struct table t;

		become(OTHER_UID);
		table(fd);
		table(fd);
		EXPECT_ERR(try_table(fd, &t), EDQUOT);
	}
	IN_CHILD {
		struct table t;

		become(UID);
		table(fd);
		EXPECT_ERR(try_table(fd, &t), EDQUOT);
	}
	signal_turn(turns.down);
	child_done(pid, __FILE__, __LINE__);
	IN_CHILD {
		become(UID);
		table(fd);
		table(fd);
	}
}

TEST(cap_sys_resource_is_exempt)
{
	int fd = device();
	struct table t[3];
	unsigned int i;

	param_set("max_views", 2);
	param_set("max_pages", 1);
	for (i = 0; i < 3; i++) {
		ASSERT_OK(try_table(fd, &t[i]));
		EXPECT_OK(set_one(fd, stub(&t[i], 0), CODE, i));
		EXPECT_EQ(call(&t[i], 0), i);
	}
}

/* Made as one user, given back as another: the first one's account is free again. */
TEST(the_account_is_of_whoever_made_it)
{
	int fd = device();
	struct trampfd_info info;
	struct table t;

	ASSERT_OK(setresuid(UID, UID, 0));
	t = table(fd);
	ASSERT_OK(set_one(fd, stub(&t, 0), CODE, 1));
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_views, 2);
	EXPECT_EQ(info.user_pages, 1);
	ASSERT_OK(setresuid(0, 0, 0));
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_views, 0);
	EXPECT_EQ(info.user_pages, 0);
	unmap_table(&t);
	ASSERT_OK(setresuid(UID, UID, 0));
	ASSERT_OK(info_get(fd, &info));
	EXPECT_EQ(info.user_views, 0);
	EXPECT_EQ(info.user_pages, 0);
}

/* --- leaks ---------------------------------------------------------------- */

static void counters(unsigned long long *c)
{
	c[0] = param_get("live_tables");
	c[1] = param_get("live_pages");
	c[2] = param_get("live_views");
}

TEST(counters_come_back)
{
	unsigned long long start[3], now[3];
	int fd = device(), tries;
	struct table t[4];
	unsigned int i;

	counters(start);
	for (i = 0; i < 4; i++) {
		t[i] = table(fd);
		ASSERT_OK(set_run(fd, stub(&t[i], 0), geometry()->slots_per_table, CODE, 1, 0));
	}
	counters(now);
	EXPECT_EQ(now[0], start[0] + 4);
	EXPECT_EQ(now[1], start[1] + 4 * (D / geometry()->page_size));
	EXPECT_EQ(now[2], start[2] + 8);
	IN_CHILD {
		for (i = 0; i < 4; i++)
			ASSERT_OK(clear_run(fd, stub(&t[i], 0), geometry()->slots_per_table));
		counters(now);
		EXPECT_EQ(now[0], start[0] + 8);
		EXPECT_EQ(now[1], start[1] + 8 * (D / geometry()->page_size));
		EXPECT_EQ(now[2], start[2] + 16);
		IN_CHILD
			ASSERT_OK(set_one(fd, stub(&t[0], 0), CODE, 1));
		/* ... and dies with all of it mapped. */
	}
	for (i = 0; i < 4; i++) {
		EXPECT_OK(munmap(t[i].code, D));
		counters(now);
		EXPECT_EQ(now[2], start[2] + 2 * (4 - i) - 1);
		EXPECT_OK(munmap(t[i].data, D));
	}
	for (tries = 0; tries < 100; tries++) {
		counters(now);
		if (!memcmp(now, start, sizeof(now)))
			break;
		usleep(10000);
	}
	for (i = 0; i < 3; i++)
		EXPECT_EQ(now[i], start[i]);
}

/* A failing mmap leaves nothing behind. */
TEST(counters_come_back_after_refusals)
{
	unsigned long long start[3], now[3];
	int fd = device();
	unsigned int i;

	counters(start);
	for (i = 0; i < 20; i++) {
		mmap(NULL, D, PROT_READ | PROT_WRITE, MAP_SHARED, fd, TRAMPFD_OFF_DATA);
		mmap(NULL, D, PROT_READ | PROT_EXEC, MAP_SHARED, fd, TRAMPFD_OFF_DATA);
		mmap(NULL, D, PROT_READ | PROT_EXEC, MAP_SHARED, fd, TRAMPFD_OFF_CODE(REG_DEFAULT));
		mmap(NULL, D / 2, PROT_READ, MAP_SHARED, fd, TRAMPFD_OFF_DATA);
	}
	counters(now);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(now[i], start[i]);
}

/* --- the shared code page -------------------------------------------------- */

TEST(reference_guard)
{
	int fd = device();
	struct table t = table(fd), u = table(fd);
	unsigned int pages = D / geometry()->page_size, i, ok = 0, refused = 0;

	ASSERT_OK(set_run(fd, stub(&t, 0), geometry()->slots_per_table, CODE, 7, 0));
	ASSERT_OK(set_run(fd, stub(&u, 0), geometry()->slots_per_table, CODE, 8, 0));
	param_set("ref_guard", 40);
	for (i = 0; i < pages; i++) {
		int sig = call_signal(stub(&t, page_slot(i)));

		EXPECT(sig == 0 || sig == SIGBUS);
		if (sig)
			refused++;
		else
			ok++;
	}
	CHECK_(ok > 0 && ok < 40 && refused == pages - ok, , "%u ran, %u refused", ok, refused);
	EXPECT_EQ(call_signal(stub(&u, page_slot(1))), SIGBUS);
	/* What is there already goes on; the data views do not count. */
	EXPECT_EQ(call(&t, 0), 7);
	EXPECT_EQ(read_signal(u.data + 3 * geometry()->page_size), 0);
	/* Another register has a page of its own. */
	{
		struct table v = table_with(fd, 0, MAP_SHARED);

		ASSERT_OK(set_one(fd, stub(&v, 0), CODE, 1));
		EXPECT_EQ(call_signal(stub(&v, 0)), 0);
	}
	/* Recovered when others let go ... */
	unmap_table(&t);
	EXPECT_EQ(call(&u, page_slot(1)), 8);
	/* ... and when the guard is where it should be. */
	param_set("ref_guard", 1 << 20);
	for (i = 0; i < pages; i++)
		EXPECT_EQ(call(&u, page_slot(i)), 8);
}
