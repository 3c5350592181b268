// SPDX-License-Identifier: GPL-2.0
/*
 * Tables: their pages and slots, and SET, CLEAR and GET on them.
 * Locks and invariants are at the head of table.h.
 */
#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "table.h"

/* Returned by try_apply(): come again with mmap_lock held for writing. */
#define NEED_WRITE	1

/* How often SET looks up the pages of targets before it says EAGAIN. */
#define FAULT_IN_TRIES	3

/* Entries between two looks at whether another task should run. */
#define RESCHED_EVERY	256

static struct tfd_slot *slot_at(const struct tfd_page *p, unsigned int in_page)
{
	return page_address(p->page) + in_page * tfd_arch.stride;
}

static unsigned long stub_at(const struct tfd_table *table, unsigned int index)
{
	return table->stubs +
	       index / tfd_arch.slots_per_page * PAGE_SIZE +
	       index % tfd_arch.slots_per_page * tfd_arch.stride;
}

/* The slot with that index, or NULL if its page is not there. Table locked. */
static struct tfd_slot *slot_find(const struct tfd_table *table,
				  unsigned int index)
{
	const struct tfd_page *p =
		table->pages[index / tfd_arch.slots_per_page];

	return p ? slot_at(p, index % tfd_arch.slots_per_page) : NULL;
}

/* No target lies in a view (policy.c), so this code means empty. */
static bool slot_is_live(const struct tfd_slot *slot, unsigned long stub)
{
	return slot->code != tfd_arch.trap(stub);
}

/*
 * A stub reads data first, so data must be there before code when a slot is
 * filled, and code gone before data when it is emptied.
 */
static void slot_fill(struct tfd_slot *slot, u64 code, u64 data)
{
	WRITE_ONCE(slot->data, data);
	smp_wmb(); /* pairs with the order of loads in the stub */
	WRITE_ONCE(slot->code, code);
}

static void slot_empty(struct tfd_slot *slot, unsigned long stub)
{
	WRITE_ONCE(slot->code, tfd_arch.trap(stub));
	smp_wmb(); /* pairs with the order of loads in the stub */
	WRITE_ONCE(slot->data, stub);
}

/* A new page of empty slots, or a copy of @from. */
static struct tfd_page *page_new(const struct tfd_table *table,
				 unsigned int i, const struct tfd_page *from)
{
	const unsigned int n = tfd_arch.slots_per_page;
	struct tfd_page *p;
	unsigned int j;

	p = kmalloc(sizeof(*p), TFD_GFP);
	if (!p)
		return ERR_PTR(-ENOMEM);
	p->user = tfd_charge(NULL, TFD_PAGES);
	if (IS_ERR(p->user)) {
		void *err = p->user;

		kfree(p);
		return err;
	}
	p->page = alloc_page(TFD_GFP | __GFP_ZERO);
	if (!p->page) {
		tfd_uncharge(p->user, TFD_PAGES);
		kfree(p);
		return ERR_PTR(-ENOMEM);
	}
	refcount_set(&p->refs, 1);
	if (from) {
		copy_page(page_address(p->page), page_address(from->page));
	} else {
		for (j = 0; j < n; j++)
			slot_empty(slot_at(p, j), stub_at(table, i * n + j));
	}
	flush_dcache_page(p->page);
	atomic_long_inc(&tfd_live_pages);
	return p;
}

static void page_put(struct tfd_page *p)
{
	if (!refcount_dec_and_test(&p->refs))
		return;
	put_page(p->page);
	tfd_uncharge(p->user, TFD_PAGES);
	kfree(p);
	atomic_long_dec(&tfd_live_pages);
}

/**
 * tfd_table_new() - a table without pages
 * @stubs: address of its first stub
 *
 * Return: the table with one view and one data view, or NULL. The caller sets
 * @user and @pgoff.
 */
struct tfd_table *tfd_table_new(unsigned long stubs)
{
	struct tfd_table *table = kzalloc(sizeof(*table), TFD_GFP);

	if (!table)
		return NULL;
	refcount_set(&table->views, 1);
	atomic_set(&table->data_views, 1);
	mutex_init(&table->lock);
	table->stubs = stubs;
	atomic_long_inc(&tfd_live_tables);
	return table;
}

static void table_free(struct tfd_table *table)
{
	unsigned int i;

	for (i = 0; i < TFD_TABLE_PAGES; i++) {
		if (table->pages[i])
			page_put(table->pages[i]);
	}
	mutex_destroy(&table->lock);
	kfree(table);
	atomic_long_dec(&tfd_live_tables);
}

/**
 * tfd_table_put_view() - a VMA no longer refers to the table
 * @table: the table; freed with its last view
 */
void tfd_table_put_view(struct tfd_table *table)
{
	struct tfd_user *user = table->user;

	if (refcount_dec_and_test(&table->views))
		table_free(table);
	tfd_uncharge(user, TFD_VIEWS);
}

/* For tfd_pair_switch(). @table is shared, so that its pages stay as they are. */
static struct tfd_table *table_clone(const struct tfd_table *table)
{
	struct tfd_table *clone = tfd_table_new(table->stubs);
	unsigned int i;

	if (!clone)
		return NULL;
	clone->pgoff = table->pgoff;
	clone->user = table->user;
	tfd_charge_view(clone->user);
	tfd_charge_view(clone->user);
	for (i = 0; i < TFD_TABLE_PAGES; i++) {
		clone->pages[i] = table->pages[i];
		if (clone->pages[i])
			refcount_inc(&clone->pages[i]->refs);
	}
	return clone;
}

static bool table_is_shared(struct tfd_table *table)
{
	/* Pairs with the release of the relative that let go of it. */
	return atomic_read_acquire(&table->data_views) > 1;
}

static bool page_is_shared(struct tfd_page *p)
{
	if (refcount_read(&p->refs) > 1)
		return true;
	smp_acquire__after_ctrl_dep(); /* with the release in page_put() */
	return false;
}

static u64 batch_stub(const struct tfd_batch *b, u32 i)
{
	if (b->slots)
		return b->slots[i].stub;
	if (b->stubs)
		return b->stubs[i];
	return b->run.stub;
}

static u64 batch_code(const struct tfd_batch *b, u32 i)
{
	return b->slots ? b->slots[i].code : b->run.code;
}

static u64 batch_data(const struct tfd_batch *b, u32 i)
{
	return b->slots ? b->slots[i].data : b->run.data + i * b->data_stride;
}

/* Index in its table of the slot of entry i, which was checked. */
static unsigned int batch_index(const struct tfd_batch *b,
				const struct tfd_table *table, u32 i)
{
	const int index = tfd_slot_index(batch_stub(b, i) - table->stubs);

	return b->slots || b->stubs ? index : index + i;
}

/* Check where entry i lies, which is in the table of @pair or an error. */
static int check_place(const struct tfd_batch *b, struct mm_struct *mm,
		       const struct tfd_pair *pair, u32 i)
{
	const u64 offset = batch_stub(b, i) - pair->table->stubs;
	struct tfd_pair other;
	int index;

	if (offset >= TRAMPFD_TABLE_SIZE) {
		const int err = tfd_pair_find(mm, batch_stub(b, i), &other);

		return err ? err : -EXDEV;
	}
	index = tfd_slot_index(offset);
	if (index < 0)
		return index;
	if (!b->slots && !b->stubs)
		return index + i < tfd_slots_per_table() ? 0 : -E2BIG;
	if (b->seen && __test_and_set_bit(index, b->seen))
		return -EINVAL;
	return 0;
}

/*
 * Check all entries, with the table locked, and collect the pages that must be
 * written. Changes nothing. On error b->bad is the entry.
 */
static int check_all(struct tfd_batch *b, struct mm_struct *mm,
		     const struct tfd_pair *pair, unsigned long *touched)
{
	const struct tfd_table *table = pair->table;
	struct tfd_target last = {};
	int err;
	u32 i;

	if (b->seen)
		bitmap_zero(b->seen, tfd_slots_per_table());
	bitmap_zero(touched, TFD_TABLE_PAGES);

	for (i = 0; i < b->count; i++) {
		const struct tfd_slot *slot;
		unsigned int index;
		bool live;

		b->bad = i;
		err = check_place(b, mm, pair, i);
		if (err)
			return err;
		index = batch_index(b, table, i);
		slot = slot_find(table, index);
		live = slot && slot_is_live(slot, stub_at(table, index));
		if (b->set) {
			if (live)
				return -EBUSY;
			err = tfd_target_check(mm, batch_code(b, i), &last);
			if (err)
				return err;
		}
		if (b->set || live)
			__set_bit(index / tfd_arch.slots_per_page, touched);

		if (i % RESCHED_EVERY == RESCHED_EVERY - 1) {
			if (fatal_signal_pending(current))
				return -EINTR;
			cond_resched();
		}
	}
	b->bad = b->count;
	return 0;
}

/* Cannot fail: all entries were checked, all pages are there and ours alone. */
static void write_all(const struct tfd_batch *b, const struct tfd_table *table)
{
	u32 i;

	for (i = 0; i < b->count; i++) {
		const unsigned int index = batch_index(b, table, i);
		struct tfd_slot *slot = slot_find(table, index);
		const unsigned long stub = stub_at(table, index);

		if (b->set)
			slot_fill(slot, batch_code(b, i), batch_data(b, i));
		else if (slot && slot_is_live(slot, stub))
			slot_empty(slot, stub);
		if (i % RESCHED_EVERY == RESCHED_EVERY - 1)
			cond_resched();
	}
}

/*
 * The pages of @touched that are not there or not ours alone, made new. None
 * is in the table yet. 0 or -EDQUOT or -ENOMEM.
 */
static int make_pages(const struct tfd_table *table, bool shared,
		      const unsigned long *touched, struct tfd_page **fresh)
{
	unsigned int i;

	for_each_set_bit(i, touched, TFD_TABLE_PAGES) {
		struct tfd_page *p = table->pages[i];

		if (p && !shared && !page_is_shared(p))
			continue;
		fresh[i] = page_new(table, i, p);
		if (IS_ERR(fresh[i])) {
			const int err = PTR_ERR(fresh[i]);

			while (i--)
				if (fresh[i])
					page_put(fresh[i]);
			return err;
		}
		cond_resched();
	}
	return 0;
}

/* Put the new pages into the table of @pair. */
static void install_pages(const struct tfd_pair *pair, struct tfd_page **fresh)
{
	struct tfd_table *table = pair->table;
	unsigned int i;

	for (i = 0; i < TFD_TABLE_PAGES; i++) {
		struct tfd_page *old = table->pages[i];

		if (!fresh[i])
			continue;
		/* Pairs with the acquire in data_fault(). */
		smp_store_release(&table->pages[i], fresh[i]);
		if (old) {
			tfd_pair_unmap(pair, i);
			page_put(old);
		}
	}
}

/*
 * One attempt at SET or CLEAR, under mmap_lock, held for writing if @write.
 * Everything that can fail comes before the first change.
 */
static int try_apply(struct tfd_batch *b, struct mm_struct *mm, bool write)
{
	DECLARE_BITMAP(touched, TFD_TABLE_PAGES);
	struct tfd_page **fresh;
	struct tfd_table *table, *clone;
	struct tfd_pair pair;
	bool shared, replace;
	unsigned int i;
	int err;

	b->bad = 0;
	err = tfd_pair_find(mm, batch_stub(b, 0), &pair);
	if (err)
		return err;
	if (tfd_pair_sealed(&pair))
		return -EPERM;

	table = pair.table;
	if (mutex_lock_killable(&table->lock))
		return -EINTR;
	err = check_all(b, mm, &pair, touched);
	if (err || bitmap_empty(touched, TFD_TABLE_PAGES))
		goto unlock;

	shared = table_is_shared(table);
	replace = shared;
	for_each_set_bit(i, touched, TFD_TABLE_PAGES)
		replace |= table->pages[i] && page_is_shared(table->pages[i]);
	if (replace && !write) {
		err = NEED_WRITE;
		goto unlock;
	}

	err = -ENOMEM;
	fresh = kcalloc(TFD_TABLE_PAGES, sizeof(*fresh), TFD_GFP);
	if (!fresh)
		goto unlock;
	clone = shared ? table_clone(table) : NULL;
	if (shared && !clone)
		goto free;
	err = make_pages(table, shared, touched, fresh);
	if (err) {
		if (clone) {
			tfd_uncharge(clone->user, TFD_VIEWS);
			tfd_table_put_view(clone);
		}
		goto free;
	}

	if (clone) {
		/*
		 * Nobody but us knows the clone until mmap_lock is released,
		 * and the old table may be freed by the switch.
		 */
		mutex_unlock(&table->lock);
		tfd_pair_switch(&pair, clone);
	}
	install_pages(&pair, fresh);
	write_all(b, pair.table);
	kfree(fresh);
	if (!clone)
		mutex_unlock(&table->lock);
	return 0;

free:
	kfree(fresh);
unlock:
	mutex_unlock(&table->lock);
	return err;
}

/* Have the pages of all targets looked up. 0 or -EINTR. */
static int fault_in_targets(const struct tfd_batch *b)
{
	u64 page = ~0ULL;
	u32 i;

	for (i = 0; i < b->count; i++) {
		const u64 code = batch_code(b, i);
		int err;

		if ((code & PAGE_MASK) == page)
			continue;
		page = code & PAGE_MASK;
		err = tfd_target_fault_in(code);
		if (err)
			return err;
	}
	return 0;
}

/**
 * tfd_apply() - SET or CLEAR in a table of the caller
 * @b: what to do; b->bad is set on error
 *
 * Return: 0 or an errno of the table in the header; on error nothing changed.
 */
int tfd_apply(struct tfd_batch *b)
{
	struct mm_struct *mm = current->mm;
	bool write = false;
	int tries = 0;
	int err;

	for (;;) {
		if (write ? mmap_write_lock_killable(mm) :
			    mmap_read_lock_killable(mm))
			return -EINTR;
		err = try_apply(b, mm, write);
		if (write)
			mmap_write_unlock(mm);
		else
			mmap_read_unlock(mm);

		if (err == NEED_WRITE) {
			write = true;
		} else if (err == -EAGAIN && tries++ < FAULT_IN_TRIES) {
			err = fault_in_targets(b);
			if (err)
				return err;
		} else {
			return err;
		}
	}
}

/**
 * tfd_read() - GET: read slots of the caller's tables
 * @slots: stub is read, code and data are written
 * @count: how many
 * @bad: out: on error the index of the first bad entry
 *
 * Return: 0, -EFAULT, -ENXIO or -EINVAL as the header says.
 */
int tfd_read(struct trampfd_slot *slots, u32 count, u32 *bad)
{
	struct mm_struct *mm = current->mm;
	struct tfd_pair pair = {};
	int err = 0;
	u32 i;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for (i = 0; i < count; i++) {
		struct trampfd_slot *s = &slots[i];
		const struct tfd_slot *slot;
		int index;

		if (!pair.table ||
		    s->stub - pair.table->stubs >= TRAMPFD_TABLE_SIZE) {
			if (pair.table)
				mutex_unlock(&pair.table->lock);
			pair.table = NULL;
			err = tfd_pair_find(mm, s->stub, &pair);
			if (err)
				break;
			if (mutex_lock_killable(&pair.table->lock)) {
				pair.table = NULL;
				err = -EINTR;
				break;
			}
		}
		index = tfd_slot_index(s->stub - pair.table->stubs);
		if (index < 0) {
			err = index;
			break;
		}
		s->code = 0;
		s->data = 0;
		slot = slot_find(pair.table, index);
		if (slot && slot_is_live(slot, s->stub)) {
			s->code = slot->code;
			s->data = slot->data;
		}
		if (i % RESCHED_EVERY == RESCHED_EVERY - 1)
			cond_resched();
	}
	if (pair.table)
		mutex_unlock(&pair.table->lock);
	mmap_read_unlock(mm);
	if (err)
		*bad = i;
	return err;
}
