// SPDX-License-Identifier: GPL-2.0
/*
 * The commands: one table, one dispatcher. Arguments are copied in whole before
 * any lock is taken, results are copied out after the last was released.
 */
#include <linux/build_bug.h>
#include <linux/compat.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "table.h"

/* How every struct begins; all but INFO and SEAL have the rest, too. */
struct head {
	u32 size;
	u32 flags;
	u32 count;
	u32 bad;
};

union args {
	struct head head;
	struct trampfd_info info;
	struct trampfd_set set;
	struct trampfd_clear clear;
	struct trampfd_get get;
	struct trampfd_seal seal;
};

/**
 * struct op - a command
 * @cmd: its number
 * @min_size: size of the first version of its struct
 * @size: size of the struct now
 * @flags: the flags it knows
 * @batch: it has count and bad
 * @fn: does it; args->head.bad is count at the start
 */
struct op {
	unsigned int cmd;
	size_t min_size;
	size_t size;
	u32 flags;
	bool batch;
	int (*fn)(union args *args);
};

static int do_info(union args *args)
{
	struct trampfd_info *info = &args->info;

	info->abi_version = TRAMPFD_ABI_VERSION;
	info->slot_stride = tfd_arch.stride;
	info->slots_per_page = tfd_arch.slots_per_page;
	info->page_size = PAGE_SIZE;
	info->slots_per_table = tfd_slots_per_table();
	info->policy = tfd_policy();
	info->regs = tfd_arch.regs;
	info->features = TRAMPFD_FEATURE_STRIDED | TRAMPFD_FEATURE_SEAL;
	info->max_views = READ_ONCE(tfd_max[TFD_VIEWS]);
	info->user_views = tfd_charged(TFD_VIEWS);
	info->max_pages = READ_ONCE(tfd_max[TFD_PAGES]);
	info->user_pages = tfd_charged(TFD_PAGES);
	return 0;
}

static int check_count(u32 count)
{
	if (!count)
		return -EINVAL;
	return count > tfd_slots_per_table() ? -E2BIG : 0;
}

/* kvfree() the result. @count was checked, so that the size is bounded. */
static void *copy_entries(u64 from, u32 count, size_t size)
{
	void *entries = kvmalloc_array(count, size, TFD_GFP);

	if (!entries)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(entries, u64_to_user_ptr(from), count * size)) {
		kvfree(entries);
		return ERR_PTR(-EFAULT);
	}
	return entries;
}

/* SET or CLEAR, whose array is in @b if it has one; frees the array. */
static int apply(struct tfd_batch *b, u32 *bad)
{
	int err = 0;

	b->bad = b->count;
	if ((b->slots || b->stubs) && b->count > 1) {
		b->seen = kvcalloc(BITS_TO_LONGS(tfd_slots_per_table()),
				   sizeof(long), TFD_GFP);
		if (!b->seen)
			err = -ENOMEM;
	}
	if (!err)
		err = tfd_apply(b);
	*bad = b->bad;
	kvfree(b->seen);
	kvfree(b->slots);
	kvfree(b->stubs);
	return err;
}

static int do_set(union args *args)
{
	struct trampfd_set *set = &args->set;
	struct tfd_batch b = { .set = true, .count = set->count };
	int err = check_count(set->count);

	if (err)
		return err;
	if (set->flags & TRAMPFD_SET_STRIDED) {
		if (set->entries)
			return -EINVAL;
		b.run.stub = set->stub;
		b.run.code = set->code;
		b.run.data = set->data;
		b.data_stride = set->data_stride;
	} else {
		if (set->stub || set->code || set->data || set->data_stride)
			return -EINVAL;
		b.slots = copy_entries(set->entries, set->count,
				       sizeof(*b.slots));
		if (IS_ERR(b.slots))
			return PTR_ERR(b.slots);
	}
	return apply(&b, &set->bad);
}

static int do_clear(union args *args)
{
	struct trampfd_clear *clear = &args->clear;
	struct tfd_batch b = { .count = clear->count };
	int err = check_count(clear->count);

	if (err)
		return err;
	if (clear->flags & TRAMPFD_CLEAR_RANGE) {
		if (clear->entries)
			return -EINVAL;
		b.run.stub = clear->stub;
	} else {
		if (clear->stub)
			return -EINVAL;
		b.stubs = copy_entries(clear->entries, clear->count,
				       sizeof(*b.stubs));
		if (IS_ERR(b.stubs))
			return PTR_ERR(b.stubs);
	}
	return apply(&b, &clear->bad);
}

static int do_get(union args *args)
{
	struct trampfd_get *get = &args->get;
	struct trampfd_slot *slots;
	int err = check_count(get->count);

	if (err)
		return err;
	slots = copy_entries(get->entries, get->count, sizeof(*slots));
	if (IS_ERR(slots))
		return PTR_ERR(slots);
	err = tfd_read(slots, get->count, &get->bad);
	if (!err && copy_to_user(u64_to_user_ptr(get->entries), slots,
				 get->count * sizeof(*slots)))
		err = -EFAULT;
	kvfree(slots);
	return err;
}

static int do_seal(union args *args)
{
	const struct trampfd_seal *seal = &args->seal;

	if (!(seal->flags & TRAMPFD_SEAL_ALL))
		return tfd_seal(seal->stub);
	return seal->stub ? -EINVAL : tfd_seal_all();
}

#define OP(_cmd, _fn, _struct, _last, _flags, _batch)			\
	[_IOC_NR(_cmd)] = {						\
		.cmd = _cmd,						\
		.min_size = offsetofend(struct _struct, _last),		\
		.size = sizeof(struct _struct),				\
		.flags = _flags,					\
		.batch = _batch,					\
		.fn = _fn,						\
	}

/* _last is the last field of the first version: it never changes. */
static const struct op ops[] = {
	OP(TRAMPFD_INFO, do_info, trampfd_info, user_pages, 0, false),
	OP(TRAMPFD_SET, do_set, trampfd_set, data_stride,
	   TRAMPFD_SET_STRIDED, true),
	OP(TRAMPFD_CLEAR, do_clear, trampfd_clear, stub,
	   TRAMPFD_CLEAR_RANGE, true),
	OP(TRAMPFD_GET, do_get, trampfd_get, entries, 0, true),
	OP(TRAMPFD_SEAL, do_seal, trampfd_seal, stub, TRAMPFD_SEAL_ALL, false),
};

/*
 * The sizes are the contract: no holes, and the same on every architecture.
 * Never called; what it says is said to the compiler.
 */
static void __maybe_unused build_check_abi(void)
{
	BUILD_BUG_ON(sizeof(struct trampfd_slot) != 3 * 8);
	BUILD_BUG_ON(sizeof(struct trampfd_info) != 8 * 4 + 6 * 8);
	BUILD_BUG_ON(sizeof(struct trampfd_set) != 4 * 4 + 5 * 8);
	BUILD_BUG_ON(sizeof(struct trampfd_clear) != 4 * 4 + 2 * 8);
	BUILD_BUG_ON(sizeof(struct trampfd_get) != 4 * 4 + 8);
	BUILD_BUG_ON(sizeof(struct trampfd_seal) != 2 * 4 + 8);

#define SAME(_struct, _field)						\
	BUILD_BUG_ON(offsetof(struct _struct, _field) !=		\
		     offsetof(struct head, _field))
	SAME(trampfd_info, size);
	SAME(trampfd_info, flags);
	SAME(trampfd_set, flags);
	SAME(trampfd_set, count);
	SAME(trampfd_set, bad);
	SAME(trampfd_clear, flags);
	SAME(trampfd_clear, count);
	SAME(trampfd_clear, bad);
	SAME(trampfd_get, flags);
	SAME(trampfd_get, count);
	SAME(trampfd_get, bad);
	SAME(trampfd_seal, flags);
#undef SAME

	BUILD_BUG_ON(TRAMPFD_TABLE_SIZE % PAGE_SIZE);
	BUILD_BUG_ON(TRAMPFD_OFF_UNIT % PAGE_SIZE);
}

/**
 * tfd_ioctl() - the device's ioctl
 * @file: the device, of which nothing is used: calls act on the caller's mm
 * @cmd: TRAMPFD_*
 * @arg: address of the struct of the command
 *
 * Return: 0 or an errno of the table in the header.
 */
long tfd_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct head __user *u = (struct head __user *)arg;
	const struct op *op;
	union args args;
	u32 size;
	int err;

	if (in_compat_syscall() || _IOC_NR(cmd) >= ARRAY_SIZE(ops))
		return -ENOTTY;
	op = &ops[array_index_nospec(_IOC_NR(cmd), ARRAY_SIZE(ops))];
	if (cmd != op->cmd)
		return -ENOTTY;

	if (get_user(size, &u->size))
		return -EFAULT;
	if (size < op->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(&args, op->size, u, size);
	if (err)
		return err;

	/* Here and not at the end, where it could fail after a change. */
	args.head.size = op->size;
	if (put_user(args.head.size, &u->size))
		return -EFAULT;

	if (op->batch)
		args.head.bad = args.head.count;
	err = args.head.flags & ~op->flags ? -EINVAL : op->fn(&args);
	if (op->batch) {
		if (err && put_user(args.head.bad, &u->bad))
			return -EFAULT;
	} else if (!err && copy_to_user(u, &args, min_t(size_t, size, op->size))) {
		return -EFAULT;
	}
	return err;
}
