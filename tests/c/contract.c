// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Every sentence of uapi/linux/trampfd.h that a caller can observe. */
#include "harness.h"

#include <sys/syscall.h>

/* The size each struct had in ABI version 1; it may grow, never shrink. */
#define INFO_SIZE_1	80
#define SET_SIZE_1	56
#define CLEAR_SIZE_1	32
#define GET_SIZE_1	24
#define SEAL_SIZE_1	16

static const struct command {
	const char *name;
	unsigned long nr;
	uint32_t first_size, size, legal_flags;
} commands[] = {
	{ "INFO", TRAMPFD_INFO, INFO_SIZE_1, sizeof(struct trampfd_info), 0 },
	{ "SET", TRAMPFD_SET, SET_SIZE_1, sizeof(struct trampfd_set), TRAMPFD_SET_STRIDED },
	{ "CLEAR", TRAMPFD_CLEAR, CLEAR_SIZE_1, sizeof(struct trampfd_clear),
	  TRAMPFD_CLEAR_RANGE },
	{ "GET", TRAMPFD_GET, GET_SIZE_1, sizeof(struct trampfd_get), 0 },
	{ "SEAL", TRAMPFD_SEAL, SEAL_SIZE_1, sizeof(struct trampfd_seal), TRAMPFD_SEAL_ALL },
};

/* A call of each command that succeeds, in a buffer larger than any size tried. */
union request {
	struct {
		uint32_t size;
		uint32_t flags;
	};
	struct trampfd_info info;
	struct trampfd_set set;
	struct trampfd_clear clear;
	struct trampfd_get get;
	struct trampfd_seal seal;
	uint8_t bytes[16384];
};

static struct trampfd_slot entry;
static uint64_t address;
static unsigned int fresh;

static void make_good(union request *r, const struct command *c, const struct table *t)
{
	/* SET needs an empty slot each time, and one that is not sealed. */
	uint64_t at = stub(t, fresh++);

	memset(r, 0, sizeof(*r));
	r->size = c->size;
	entry = (struct trampfd_slot){ at, CODE, 7 };
	address = at;
	switch (c->nr) {
	case TRAMPFD_SET:
		r->set.count = 1;
		r->set.entries = U64(&entry);
		break;
	case TRAMPFD_CLEAR:
		r->clear.count = 1;
		r->clear.entries = U64(&address);
		break;
	case TRAMPFD_GET:
		r->get.count = 1;
		r->get.entries = U64(&entry);
		break;
	case TRAMPFD_SEAL:
		r->seal.stub = at;
		break;
	}
}

/* The good call is good: what the size tests refuse, they refuse for the size. */
static void expect_good(int fd, const struct command *c, uint32_t size)
{
	struct table t = table(fd);
	union request r;

	make_good(&r, c, &t);
	r.size = size;
	CHECK_(ioctl(fd, c->nr, &r) == 0, , "%s size %u: %s", c->name, size, strerror(errno));
	CHECK_(r.size == c->size, , "%s size %u: wrote back size %u", c->name, size, r.size);
	if (c->nr == TRAMPFD_SET)
		EXPECT_EQ(get_one(fd, entry.stub).data, 7);
	if (c->nr == TRAMPFD_SEAL)
		EXPECT_ERR(set_one(fd, stub(&t, 0), CODE, 1), EPERM);
	unmap_table(&t);
}

static void expect_refused(int fd, const struct command *c, union request *r, int err,
			   const char *what, unsigned int n)
{
	long got;

	errno = 0;
	got = ioctl(fd, c->nr, r);
	CHECK_(got == -1 && errno == err, , "%s, %s %u: expected errno %d, got %ld, errno %d (%s)",
	       c->name, what, n, err, got, errno, strerror(errno));
}

TEST(struct_sizes_of_version_1)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		EXPECT(commands[i].size >= commands[i].first_size);
	EXPECT_EQ(TRAMPFD_ABI_VERSION, 1);
	EXPECT_EQ(sizeof(struct trampfd_info), INFO_SIZE_1);
	EXPECT_EQ(sizeof(struct trampfd_set), SET_SIZE_1);
	EXPECT_EQ(sizeof(struct trampfd_clear), CLEAR_SIZE_1);
	EXPECT_EQ(sizeof(struct trampfd_get), GET_SIZE_1);
	EXPECT_EQ(sizeof(struct trampfd_seal), SEAL_SIZE_1);
	EXPECT_EQ(sizeof(struct trampfd_slot), 24);
}

TEST(size_below_first_version_is_einval)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot *before = snapshot(fd, &t);
	unsigned int i, size;
	union request r;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		for (size = 0; size < commands[i].first_size; size++) {
			make_good(&r, &commands[i], &t);
			r.size = size;
			expect_refused(fd, &commands[i], &r, EINVAL, "size", size);
		}
	EXPECT_UNCHANGED(fd, &t, before);
	/* ... and the SEAL calls did not seal. */
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 1));
}

TEST(size_larger_with_zero_tail_is_accepted)
{
	int fd = device();
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		expect_good(fd, &commands[i], commands[i].first_size);
		expect_good(fd, &commands[i], commands[i].size);
		expect_good(fd, &commands[i], commands[i].size + 1);
		expect_good(fd, &commands[i], commands[i].size + 8);
		expect_good(fd, &commands[i], geometry()->page_size);
	}
}

TEST(size_larger_with_nonzero_tail_is_e2big)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot *before = snapshot(fd, &t);
	uint32_t page = geometry()->page_size;
	unsigned int i, at;
	union request r;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		for (at = commands[i].size; at < page; at += at < commands[i].size + 16 ? 1 : 509) {
			make_good(&r, &commands[i], &t);
			r.size = at + 1;
			r.bytes[at] = 0x80;
			expect_refused(fd, &commands[i], &r, E2BIG, "non-zero byte", at);
		}
	EXPECT_UNCHANGED(fd, &t, before);
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 1));
}

TEST(size_above_a_page_is_e2big)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot *before = snapshot(fd, &t);
	unsigned int i, k;
	union request r;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		const uint32_t sizes[] = { geometry()->page_size + 1, 2 * geometry()->page_size,
					   0x7fffffff, 0x80000000, 0xffffffff };

		for (k = 0; k < ARRAY_SIZE(sizes); k++) {
			make_good(&r, &commands[i], &t);
			r.size = sizes[k];
			expect_refused(fd, &commands[i], &r, E2BIG, "size", sizes[k]);
		}
	}
	EXPECT_UNCHANGED(fd, &t, before);
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 1));
}

/* Bytes beyond the caller's size are not touched, even where the kernel knows more. */
TEST(output_stays_within_the_callers_size)
{
	int fd = device();
	struct { struct trampfd_info info; uint64_t behind[2]; } r;

	memset(&r, 0xee, sizeof(r));
	memset(&r.info, 0, sizeof(r.info));
	r.info.size = INFO_SIZE_1;
	EXPECT_OK(ioctl(fd, TRAMPFD_INFO, &r));
	EXPECT_EQ(r.behind[0], 0xeeeeeeeeeeeeeeeeULL);
	EXPECT_EQ(r.info.size, sizeof(struct trampfd_info));
	EXPECT_EQ(r.info.abi_version, TRAMPFD_ABI_VERSION);

	memset(&r, 0, sizeof(r));
	r.info.size = sizeof(r);
	EXPECT_OK(ioctl(fd, TRAMPFD_INFO, &r));
	EXPECT_EQ(r.behind[0] | r.behind[1], 0);
	EXPECT_EQ(r.info.size, sizeof(struct trampfd_info));
	EXPECT_EQ(r.info.abi_version, TRAMPFD_ABI_VERSION);
}

TEST(unknown_flags_are_einval)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot *before = snapshot(fd, &t);
	unsigned int i, bit;
	union request r;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		for (bit = 0; bit < 32; bit++) {
			if (commands[i].legal_flags & (1U << bit))
				continue;
			make_good(&r, &commands[i], &t);
			r.flags = 1U << bit;
			expect_refused(fd, &commands[i], &r, EINVAL, "flag bit", bit);
		}
	EXPECT_UNCHANGED(fd, &t, before);
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 1));
}

TEST(fields_that_must_be_zero_are_einval)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot *before = snapshot(fd, &t);
	struct trampfd_slot e = { stub(&t, 0), CODE, 1 };
	uint64_t a = stub(&t, 0);
	struct trampfd_set set = { .size = sizeof(set), .count = 1, .entries = U64(&e) };
	struct trampfd_set run = { .size = sizeof(run), .flags = TRAMPFD_SET_STRIDED,
				   .count = 1, .stub = a, .code = CODE };
	struct trampfd_clear clear = { .size = sizeof(clear), .count = 1, .entries = U64(&a) };
	struct trampfd_clear range = { .size = sizeof(range), .flags = TRAMPFD_CLEAR_RANGE,
				       .count = 1, .stub = a };
	struct trampfd_seal seal = { .size = sizeof(seal), .flags = TRAMPFD_SEAL_ALL };
	struct trampfd_set s;
	struct trampfd_clear c;

	s = set, s.stub = a;
	EXPECT_ERR(ioctl(fd, TRAMPFD_SET, &s), EINVAL);
	s = set, s.code = CODE;
	EXPECT_ERR(ioctl(fd, TRAMPFD_SET, &s), EINVAL);
	s = set, s.data = 1;
	EXPECT_ERR(ioctl(fd, TRAMPFD_SET, &s), EINVAL);
	s = set, s.data_stride = 1;
	EXPECT_ERR(ioctl(fd, TRAMPFD_SET, &s), EINVAL);
	s = run, s.entries = U64(&e);
	EXPECT_ERR(ioctl(fd, TRAMPFD_SET, &s), EINVAL);
	c = clear, c.stub = a;
	EXPECT_ERR(ioctl(fd, TRAMPFD_CLEAR, &c), EINVAL);
	c = range, c.entries = U64(&a);
	EXPECT_ERR(ioctl(fd, TRAMPFD_CLEAR, &c), EINVAL);
	seal.stub = a;
	EXPECT_ERR(ioctl(fd, TRAMPFD_SEAL, &seal), EINVAL);
	EXPECT_UNCHANGED(fd, &t, before);

	/* Each of them is accepted without the field. */
	EXPECT_OK(set_call(fd, &set));
	EXPECT_OK(ioctl(fd, TRAMPFD_CLEAR, &clear));
	EXPECT_OK(set_call(fd, &run));
	EXPECT_OK(ioctl(fd, TRAMPFD_CLEAR, &range));
	seal.stub = 0;
	EXPECT_OK(ioctl(fd, TRAMPFD_SEAL, &seal));
}

TEST(unknown_command_is_enotty)
{
	int fd = device();
	unsigned int nr, i;
	union request r;

	memset(&r, 0, sizeof(r));
	for (nr = 5; nr < 256; nr++)
		EXPECT_ERR(ioctl(fd, _IO(TRAMPFD_IOC_TYPE, nr), &r), ENOTTY);
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		r.size = commands[i].size;
		EXPECT_ERR(ioctl(fd, _IO(TRAMPFD_IOC_TYPE + 1, commands[i].nr & 0xff), &r),
			   ENOTTY);
		EXPECT_ERR(ioctl(fd, _IOWR(TRAMPFD_IOC_TYPE, commands[i].nr & 0xff,
					   struct trampfd_info), &r), ENOTTY);
	}
}

TEST(struct_that_cannot_be_read_is_efault)
{
	int fd = device();
	uint32_t page = geometry()->page_size;
	uint8_t *two = reserve(2 * page);
	unsigned int i;

	ASSERT_OK(mprotect(two, page, PROT_READ | PROT_WRITE));
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		uint32_t *cut = (uint32_t *)(two + page - 8);

		EXPECT_ERR(ioctl(fd, commands[i].nr, NULL), EFAULT);
		EXPECT_ERR(ioctl(fd, commands[i].nr, two + page), EFAULT);
		/* size is readable, what it promises is not */
		cut[0] = commands[i].size;
		cut[1] = 0;
		EXPECT_ERR(ioctl(fd, commands[i].nr, cut), EFAULT);
		EXPECT_ERR(ioctl(fd, commands[i].nr, (void *)(two + page - 2)), EFAULT);
		EXPECT_ERR(ioctl(fd, commands[i].nr, (void *)0xffffffff81000000ULL), EFAULT);
	}
}

TEST(array_that_cannot_be_read_is_efault)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot *before = snapshot(fd, &t);
	uint32_t page = geometry()->page_size;
	uint8_t *two = reserve(2 * page);
	struct trampfd_slot *cut;
	uint64_t *cut_clear;

	ASSERT_OK(mprotect(two, page, PROT_READ | PROT_WRITE));
	cut = (struct trampfd_slot *)(two + page) - 1;
	*cut = (struct trampfd_slot){ stub(&t, 0), CODE, 1 };
	EXPECT_ERR(set_array(fd, NULL, 1, NULL), EFAULT);
	EXPECT_ERR(set_array(fd, cut, 2, NULL), EFAULT);
	EXPECT_ERR(set_array(fd, (void *)0xffffffff81000000ULL, 1, NULL), EFAULT);
	EXPECT_ERR(get_array(fd, NULL, 1, NULL), EFAULT);
	EXPECT_ERR(get_array(fd, cut, 2, NULL), EFAULT);
	EXPECT_UNCHANGED(fd, &t, before);
	cut_clear = (uint64_t *)(two + page) - 1;
	*cut_clear = stub(&t, 0);
	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 1));
	EXPECT_ERR(clear_array(fd, NULL, 1, NULL), EFAULT);
	EXPECT_ERR(clear_array(fd, cut_clear, 2, NULL), EFAULT);
	EXPECT_EQ(get_one(fd, stub(&t, 0)).code, CODE);

	/* GET into memory that cannot be written */
	*cut = (struct trampfd_slot){ stub(&t, 0), 0, 0 };
	ASSERT_OK(mprotect(two, page, PROT_READ));
	EXPECT_ERR(get_array(fd, cut, 1, NULL), EFAULT);
}

TEST(info)
{
	int fd = device();
	struct trampfd_info i;
	uint32_t page = sysconf(_SC_PAGESIZE);

	ASSERT_OK(info_get(fd, &i));
	EXPECT_EQ(i.size, sizeof(i));
	EXPECT_EQ(i.flags, 0);
	EXPECT_EQ(i.abi_version, TRAMPFD_ABI_VERSION);
	EXPECT_EQ(i.slot_stride, SLOT_STRIDE);
	EXPECT_EQ(i.page_size, page);
	EXPECT(i.slots_per_page > 0 && i.slots_per_page * i.slot_stride <= page);
	EXPECT_EQ(i.slots_per_table, i.slots_per_page * (TRAMPFD_TABLE_SIZE / page));
	EXPECT_EQ(i.regs, LEGAL_REGS);
	EXPECT_EQ(i.policy, 0);
	EXPECT_EQ(i.features, TRAMPFD_FEATURE_STRIDED | TRAMPFD_FEATURE_SEAL);
	EXPECT_EQ(i.max_views, param_get("max_views"));
	EXPECT_EQ(i.max_pages, param_get("max_pages"));
}

TEST(info_shows_the_policy_in_force)
{
	int fd = device();
	struct trampfd_info i;

	param_set("strict_vma", 1);
	ASSERT_OK(info_get(fd, &i));
	EXPECT_EQ(i.policy, TRAMPFD_POLICY_STRICT_VMA);
	param_set("relaxed", 1);
	ASSERT_OK(info_get(fd, &i));
	EXPECT_EQ(i.policy, TRAMPFD_POLICY_STRICT_VMA | TRAMPFD_POLICY_RELAXED);
}

TEST(device_node)
{
	struct stat st;

	ASSERT_OK(stat(DEVICE, &st));
	EXPECT(S_ISCHR(st.st_mode));
	EXPECT_EQ(st.st_mode & 07777, 0444);
}

TEST(every_legal_register_gets_data_and_no_other_changes)
{
	int fd = device(), reg, other;

	for (reg = 0; reg < 16; reg++) {
		uint64_t data = 0xdada000000000000ULL + reg;
		unsigned int i, where[] = { 0, 1, geometry()->slots_per_page - 1,
					    geometry()->slots_per_page,
					    geometry()->slots_per_table - 1 };
		struct table t;

		if (!(LEGAL_REGS & (1ULL << reg)))
			continue;
		t = table_with(fd, reg, MAP_SHARED);
		for (i = 0; i < ARRAY_SIZE(where); i++) {
			ASSERT_OK(set_one(fd, stub(&t, where[i]), U64(keep_regs), data + i * 256));
			memset(seen_regs, 0, sizeof(seen_regs));
			call_with_regs((void *)(uintptr_t)stub(&t, where[i]));
			for (other = 0; other < 16; other++) {
				uint64_t want = other == reg ? data + i * 256 : REG_MARK(other);

				if (other == 7) /* the stack pointer */
					continue;
				CHECK_(seen_regs[other] == want, ,
				       "slot %u, register %d: %d is %#lx, expected %#lx",
				       where[i], reg, other, seen_regs[other], want);
			}
		}
		unmap_table(&t);
	}
}

TEST(every_other_register_is_einval)
{
	int fd = device();
	uint8_t *at = reserve(2 * D);
	unsigned int reg;

	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	for (reg = 0; reg < 300; reg++) {
		if (reg < 64 && (LEGAL_REGS & (1ULL << reg)))
			continue;
		EXPECT_ERR(map_code_at(fd, at, reg, MAP_SHARED), EINVAL);
	}
	EXPECT_ERR(map_code_at(fd, at, 0x7fffff, MAP_SHARED), EINVAL);
	EXPECT_ERR(mmap(at, D, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd,
			TRAMPFD_OFF_CODE((1ULL << 32) + REG_DEFAULT)), EINVAL);
}

TEST(mmap_unknown_offset_is_einval)
{
	int fd = device();
	uint8_t *at = reserve(2 * D);
	long page = geometry()->page_size;
	const off_t bad[] = { page, TRAMPFD_OFF_UNIT, 0xff * TRAMPFD_OFF_UNIT,
			      TRAMPFD_OFF_CODE(REG_DEFAULT) + page,
			      TRAMPFD_OFF_CODE(REG_DEFAULT) - page,
			      TRAMPFD_OFF_CODE(REG_DEFAULT) | (1LL << 40), 1LL << 46 };
	unsigned int i;

	ASSERT(map_data_at(fd, at + D, MAP_SHARED) != MAP_FAILED);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_ERR(mmap(at, D, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, bad[i]),
			   EINVAL);
		EXPECT_ERR(mmap(NULL, D, PROT_READ, MAP_SHARED, fd, bad[i]), EINVAL);
	}
}

TEST(mmap_other_length_is_einval)
{
	int fd = device();
	uint8_t *at = reserve(4 * D);
	size_t page = geometry()->page_size;
	const size_t bad[] = { page, D / 2, D - page, D + page, 2 * D };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_ERR(mmap(NULL, bad[i], PROT_READ, MAP_SHARED, fd, TRAMPFD_OFF_DATA), EINVAL);
	for (i = 0; i < ARRAY_SIZE(bad) - 1; i++) {
		ASSERT(map_data_at(fd, at + 2 * D, MAP_SHARED) != MAP_FAILED);
		EXPECT_ERR(mmap(at + 2 * D - bad[i], bad[i], PROT_READ | PROT_EXEC,
				MAP_SHARED | MAP_FIXED, fd, TRAMPFD_OFF_CODE(REG_DEFAULT)), EINVAL);
		EXPECT_ERR(mmap(at + D, bad[i] < D ? bad[i] : page, PROT_READ | PROT_EXEC,
				MAP_SHARED | MAP_FIXED, fd, TRAMPFD_OFF_CODE(REG_DEFAULT)), EINVAL);
	}
}

TEST(set_array_and_strided_bind)
{
	int fd = device();
	struct table t = table(fd);
	unsigned int spp = geometry()->slots_per_page, i;
	unsigned int n = 3 * spp + 5, first = spp - 3;
	struct trampfd_slot e[3] = { { stub(&t, 5), CODE, 50 },
				     { stub(&t, 2), CODE_NOT, 20 },
				     { stub(&t, spp * 7 + 1), CODE, 70 } };

	EXPECT_OK(set_array(fd, e, 3, NULL));
	EXPECT_EQ(call(&t, 5), 50);
	EXPECT_EQ(call(&t, 2), ~20ULL);
	EXPECT_EQ(call(&t, spp * 7 + 1), 70);
	EXPECT_OK(clear_run(fd, stub(&t, 5), 1));
	EXPECT_OK(clear_run(fd, stub(&t, 2), 1));

	/* A run over page ends: in slot order, data going on from page to page. */
	EXPECT_OK(set_run(fd, stub(&t, first), n, CODE, 1000, 24));
	for (i = 0; i < n; i++) {
		struct trampfd_slot g = get_one(fd, stub(&t, first + i));

		EXPECT_EQ(g.code, CODE);
		EXPECT_EQ(g.data, 1000 + 24 * i);
		EXPECT_EQ(call(&t, first + i), 1000 + 24 * i);
	}
	EXPECT_EQ(get_one(fd, stub(&t, first - 1)).code, 0);
	EXPECT_EQ(get_one(fd, stub(&t, first + n)).code, 0);

	/* The sum is modulo 2^64; a stride of 0 and a whole table are legal. */
	EXPECT_OK(set_run(fd, stub(&t, first + n), 3, CODE, ~0ULL, 2));
	EXPECT_EQ(call(&t, first + n), ~0ULL);
	EXPECT_EQ(call(&t, first + n + 1), 1);
	EXPECT_EQ(call(&t, first + n + 2), 3);
	EXPECT_OK(clear_run(fd, stub(&t, 0), geometry()->slots_per_table));
	EXPECT_OK(set_run(fd, stub(&t, 0), geometry()->slots_per_table, CODE, 9, 0));
	EXPECT_EQ(call(&t, geometry()->slots_per_table - 1), 9);
}

TEST(count_zero_is_einval)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot e = { stub(&t, 0), CODE, 1 };
	uint64_t a = stub(&t, 0);

	EXPECT_ERR(set_array(fd, &e, 0, NULL), EINVAL);
	EXPECT_ERR(set_run(fd, a, 0, CODE, 1, 0), EINVAL);
	EXPECT_ERR(clear_array(fd, &a, 0, NULL), EINVAL);
	EXPECT_ERR(clear_run(fd, a, 0), EINVAL);
	EXPECT_ERR(get_array(fd, &e, 0, NULL), EINVAL);
}

TEST(count_above_a_table_is_e2big)
{
	int fd = device();
	struct table t = table(fd);
	struct trampfd_slot *before = snapshot(fd, &t);
	unsigned int n = geometry()->slots_per_table, k;
	const unsigned int bad[] = { n + 1, 0x7fffffff, 0x80000000, 0xffffffff };
	struct trampfd_slot *e = calloc(n + 1, sizeof(*e));
	uint64_t *a = calloc(n + 1, sizeof(*a));

	ASSERT(e && a);
	for (k = 0; k < n + 1; k++) {
		a[k] = stub(&t, k % n);
		e[k] = (struct trampfd_slot){ a[k], CODE, k };
	}
	for (k = 0; k < ARRAY_SIZE(bad); k++) {
		EXPECT_ERR(set_array(fd, e, bad[k], NULL), E2BIG);
		EXPECT_ERR(set_run(fd, a[0], bad[k], CODE, 1, 0), E2BIG);
		EXPECT_ERR(clear_array(fd, a, bad[k], NULL), E2BIG);
		EXPECT_ERR(clear_run(fd, a[0], bad[k]), E2BIG);
		EXPECT_ERR(get_array(fd, e, bad[k], NULL), E2BIG);
	}
	/* A run that leaves its table */
	EXPECT_ERR(set_run(fd, a[1], n, CODE, 1, 0), E2BIG);
	EXPECT_ERR(set_run(fd, a[n - 1], 2, CODE, 1, 0), E2BIG);
	EXPECT_ERR(clear_run(fd, a[1], n), E2BIG);
	EXPECT_ERR(clear_run(fd, a[n - 1], 2), E2BIG);
	EXPECT_UNCHANGED(fd, &t, before);
	/* The largest legal ones */
	EXPECT_OK(set_array(fd, e, n, NULL));
	EXPECT_EQ(call(&t, n - 1), n - 1);
	EXPECT_OK(clear_array(fd, a, n, NULL));
	EXPECT_EQ(call_signal(stub(&t, 0)), SIGILL);
}

/* Each kind of bad entry, as first, middle and last one; the index comes back. */
TEST(bad_entry_is_named_and_nothing_changed)
{
	int fd = device();
	struct table t = table(fd), other = table(fd);
	uint64_t live = stub(&t, 900);
	uint8_t *plain = reserve(D);
	struct trampfd_slot *before;
	const struct {
		struct trampfd_slot e;
		int set, clear, get;	/* errno; 0: that call accepts it */
	} bad[] = {
		/* not in a code view */
		{ { U64(t.data), CODE, 1 }, EFAULT, EFAULT, EFAULT },
		{ { U64(plain), CODE, 1 }, EFAULT, EFAULT, EFAULT },
		{ { U64(&t) & ~0xfffULL, CODE, 1 }, EFAULT, EFAULT, EFAULT },
		{ { CODE & ~0xfffULL, CODE, 1 }, EFAULT, EFAULT, EFAULT },
		{ { 0, CODE, 1 }, EFAULT, EFAULT, EFAULT },
		{ { stub(&t, 0) | (1ULL << 63), CODE, 1 }, EFAULT, EFAULT, EFAULT },
		{ { 0xffffffff81000000ULL, CODE, 1 }, EFAULT, EFAULT, EFAULT },
		/* not the start of a stub */
		{ { stub(&t, 0) + 1, CODE, 1 }, EINVAL, EINVAL, EINVAL },
		{ { stub(&t, 0) + 8, CODE, 1 }, EINVAL, EINVAL, EINVAL },
		{ { stub(&t, 1) - 1, CODE, 1 }, EINVAL, EINVAL, EINVAL },
		/* code that no mapping can have */
		{ { stub(&t, 3), NON_CANONICAL, 1 }, EINVAL, 0, 0 },
		{ { stub(&t, 3), CODE | TAG, 1 }, EINVAL, 0, 0 },
		{ { stub(&t, 3), CODE | (1ULL << 62), 1 }, EINVAL, 0, 0 },
		{ { stub(&t, 3), CODE | (1ULL << 63), 1 }, EINVAL, 0, 0 },
		/* code that is no text */
		{ { stub(&t, 3), U64(plain), 1 }, EPERM, 0, 0 },
		{ { stub(&t, 3), U64(&t), 1 }, EPERM, 0, 0 },
		{ { stub(&t, 3), 0, 1 }, EPERM, 0, 0 },
		{ { stub(&t, 3), 0xffffffff81000000ULL, 1 }, EPERM, 0, 0 },
		/* live, in another table, twice */
		{ { live, CODE, 1 }, EBUSY, 0, 0 },
		{ { stub(&other, 0), CODE, 1 }, EXDEV, EXDEV, 0 },
		{ { stub(&t, 100), CODE, 1 }, EINVAL, EINVAL, -1 },
	};
	unsigned int i, k, where;

	ASSERT_OK(set_one(fd, live, CODE, 77));
	before = snapshot(fd, &t);
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		for (where = 0; where < 6; where++) {
			struct trampfd_slot e[6];
			uint64_t a[6];
			bool first_rules = bad[i].set == EXDEV && where == 0;
			uint32_t index;

			for (k = 0; k < 6; k++)
				e[k] = (struct trampfd_slot){ stub(&t, 100 + 99 * k), CODE, k };
			e[where] = bad[i].e;
			for (k = 0; k < 6; k++)
				a[k] = e[k].stub;
			/* The same slot as entry 0 is a good one when it is entry 0. */
			if (where == 0 && e[0].stub == stub(&t, 100))
				continue;
			errno = 0;
			k = set_array(fd, e, 6, &index);
			CHECK_(k == -1U && errno == bad[i].set, ,
			       "SET row %u at %u: expected errno %d, got %d, errno %d (%s)",
			       i, where, bad[i].set, (int)k, errno, strerror(errno));
			CHECK_(index == (first_rules ? 1 : where), ,
			       "SET row %u at %u: bad is %u", i, where, index);
			if (bad[i].clear) {
				errno = 0;
				k = clear_array(fd, a, 6, &index);
				CHECK_(k == -1U && errno == bad[i].clear, ,
				       "CLEAR row %u at %u: expected errno %d, got %d, errno %d (%s)",
				       i, where, bad[i].clear, (int)k, errno, strerror(errno));
				CHECK_(index == (first_rules ? 1 : where), ,
				       "CLEAR row %u at %u: bad is %u", i, where, index);
			}
			if (bad[i].get > 0) {
				errno = 0;
				k = get_array(fd, e, 6, &index);
				CHECK_(k == -1U && errno == bad[i].get, ,
				       "GET row %u at %u: expected errno %d, got %d, errno %d (%s)",
				       i, where, bad[i].get, (int)k, errno, strerror(errno));
				CHECK_(index == where, , "GET row %u at %u: bad is %u", i, where, index);
			}
		}
	EXPECT_UNCHANGED(fd, &t, before);
	EXPECT_EQ(call(&t, 900), 77);
}

/* The same refusals of the strided forms, where a single slot can be wrong. */
TEST(bad_runs_change_nothing)
{
	int fd = device();
	struct table t = table(fd);
	uint8_t *plain = reserve(D);
	struct trampfd_slot *before;
	struct trampfd_set s = { .size = sizeof(s), .flags = TRAMPFD_SET_STRIDED, .count = 400,
				 .bad = 0xbad, .stub = stub(&t, 700), .code = CODE };

	ASSERT_OK(set_one(fd, stub(&t, 900), CODE, 77));
	before = snapshot(fd, &t);
	EXPECT_ERR(set_call(fd, &s), EBUSY);
	EXPECT_EQ(s.bad, 200);
	EXPECT_ERR(set_run(fd, stub(&t, 0) + 4, 4, CODE, 1, 0), EINVAL);
	EXPECT_ERR(set_run(fd, U64(t.data), 4, CODE, 1, 0), EFAULT);
	EXPECT_ERR(set_run(fd, U64(plain), 4, CODE, 1, 0), EFAULT);
	EXPECT_ERR(set_run(fd, 0, 4, CODE, 1, 0), EFAULT);
	EXPECT_ERR(set_run(fd, stub(&t, 0), 4, CODE | TAG, 1, 0), EINVAL);
	EXPECT_ERR(set_run(fd, stub(&t, 0), 4, NON_CANONICAL, 1, 0), EINVAL);
	EXPECT_ERR(set_run(fd, stub(&t, 0), 4, U64(plain), 1, 0), EPERM);
	EXPECT_ERR(clear_run(fd, stub(&t, 0) + 4, 4), EINVAL);
	EXPECT_ERR(clear_run(fd, U64(t.data), 4), EFAULT);
	EXPECT_ERR(clear_run(fd, U64(plain), 4), EFAULT);
	EXPECT_UNCHANGED(fd, &t, before);
	EXPECT_EQ(call(&t, 900), 77);
}

TEST(set_on_a_live_slot_is_ebusy_until_cleared)
{
	int fd = device();
	struct table t = table(fd);

	EXPECT_OK(set_one(fd, stub(&t, 3), CODE, 5));
	EXPECT_ERR(set_one(fd, stub(&t, 3), CODE, 6), EBUSY);
	EXPECT_ERR(set_one(fd, stub(&t, 3), CODE, 5), EBUSY);
	EXPECT_EQ(call(&t, 3), 5);
	EXPECT_OK(clear_run(fd, stub(&t, 3), 1));
	EXPECT_EQ(call_signal(stub(&t, 3)), SIGILL);
	EXPECT_OK(set_one(fd, stub(&t, 3), CODE_NOT, 6));
	EXPECT_EQ(call(&t, 3), ~6ULL);
}

TEST(data_is_any_word_and_never_dereferenced)
{
	const uint64_t words[] = { 0, 1, ~0ULL, NON_CANONICAL, 0xffffffff81000000ULL,
				   0x8000000000000000ULL, 0xdeadbeefdeadbeefULL };
	int fd = device();
	struct table t = table(fd);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(words); i++) {
		EXPECT_OK(set_one(fd, stub(&t, i), CODE, words[i]));
		EXPECT_EQ(get_one(fd, stub(&t, i)).data, words[i]);
		EXPECT_EQ(call(&t, i), words[i]);
	}
}

TEST(clear_of_empty_slots_is_no_error)
{
	int fd = device();
	struct table t = table(fd);

	EXPECT_OK(clear_run(fd, stub(&t, 0), geometry()->slots_per_table));
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 1));
	EXPECT_OK(clear_run(fd, stub(&t, 0), 3));
	EXPECT_OK(clear_run(fd, stub(&t, 0), 3));
	EXPECT_EQ(get_one(fd, stub(&t, 1)).code, 0);
}

TEST(get_reads_live_empty_and_untouched_slots)
{
	int fd = device();
	struct table t = table(fd), u = table(fd);
	struct trampfd_slot e[4] = { { stub(&t, 0), 1, 1 }, { stub(&u, 9), 1, 1 },
				     { stub(&t, 1), 1, 1 }, { stub(&t, page_slot(9)), 1, 1 } };

	EXPECT_OK(set_one(fd, stub(&t, 0), CODE, 11));
	EXPECT_OK(set_one(fd, stub(&u, 9), CODE_NOT, 22));
	EXPECT_OK(set_one(fd, stub(&t, 1), CODE, 11));
	EXPECT_OK(clear_run(fd, stub(&t, 1), 1));
	EXPECT_OK(get_array(fd, e, 4, NULL));
	EXPECT(e[0].code == CODE && e[0].data == 11);
	EXPECT(e[1].code == CODE_NOT && e[1].data == 22);
	EXPECT(e[2].code == 0 && e[2].data == 0);
	EXPECT(e[3].code == 0 && e[3].data == 0);
	EXPECT(e[3].stub == stub(&t, page_slot(9)));
	/* Reading made no page: it is still not there. */
	EXPECT_EQ(read_signal(t.data + 9 * geometry()->page_size), SIGBUS);
}

/* The i386 gate: a 64-bit program may use it, the kernel sees a compat caller. */
static long int80(long nr, long a, long b, long c, long d, long e, long f)
{
	long r;

	/* ebp carries the sixth argument; the red zone stays whole. */
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpush %%rbp\n\tmov %[f], %%rbp\n\t"
			 "int $0x80\n\tpop %%rbp\n\tlea 128(%%rsp), %%rsp"
			 : "=a"(r)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [f] "r"(f)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)r;
}

static void try_int80(void *unused)
{
	(void)unused;
	int80(20 /* getpid */, 0, 0, 0, 0, 0, 0);
}

TEST(callers_of_32_bit_are_enotty_and_enodev)
{
	static struct trampfd_info info;	/* below 4 GiB: this program is not PIE */
	int fd = device();

	if (catch_signal(try_int80, NULL, NULL) ||
	    int80(20, 0, 0, 0, 0, 0, 0) != getpid()) {
		NOTE("this kernel has no 32-bit system calls");
		return;
	}
	ASSERT_EQ(U64(&info) >> 32, 0);
	info.size = sizeof(info);
	EXPECT_EQ(int80(54 /* ioctl */, fd, TRAMPFD_INFO, (long)&info, 0, 0, 0), -ENOTTY);
	EXPECT_EQ(info.abi_version, 0);
	EXPECT_EQ(int80(192 /* mmap2 */, 0, D, PROT_READ, MAP_SHARED, fd, 0), -ENODEV);
	EXPECT_OK(ioctl(fd, TRAMPFD_INFO, &info));
}

TEST(callers_of_x32_are_enotty_and_enodev)
{
	static struct trampfd_info info;
	const long x32 = 0x40000000;
	int fd = device();

	if (syscall(x32 + SYS_getpid) != getpid()) {
		NOTE("this kernel has no x32 system calls");
		return;
	}
	info.size = sizeof(info);
	EXPECT_ERR(syscall(x32 + 514 /* ioctl */, fd, TRAMPFD_INFO, &info), ENOTTY);
	EXPECT_EQ(info.abi_version, 0);
	EXPECT_ERR(syscall(x32 + SYS_mmap, 0, D, PROT_READ, MAP_SHARED, fd, 0), ENODEV);
}
