/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tables, and what the files of this module know of each other.
 *
 * A table is what stands behind one data view and its code view. fork gives
 * the child the same table (it takes references, which cannot fail); the
 * first SET or CLEAR of either side gives that side a table of its own, which
 * shares all pages but those written.
 *
 *   parent mm               child mm               child after a SET
 *   code VMA, data VMA      code VMA, data VMA     code VMA, data VMA
 *        \       \            /       /                  |      |
 *         +------ table (views 4) ---+                table (views 2)
 *                  | pages[]                             | pages[]
 *                  tfd_page (refs 2) --------------------+
 *                  tfd_page (refs 1)                  tfd_page (its own copy)
 *
 * Locks, outermost first:
 *
 *   mmap_lock     of the caller's mm. Held for reading it keeps VMAs, their
 *                 vm_private_data, and with them fork away. .fault runs under
 *                 it (these views have no .map_pages, so never under the lock
 *                 of a single VMA).
 *   table->lock   the slots, and filling an empty entry of pages[].
 *   i_mmap_rwsem  inside unmap_mapping_pages().
 *   user_lock     (account.c) the charges.
 *
 * User memory is only touched with none of them held.
 *
 * Invariants:
 *
 * - A table with data_views > 1 is shared with another mm: nobody changes it.
 *   data_views can rise only by a fork of an mm that has the table, which
 *   takes that mm's mmap_lock for writing.
 * - A tfd_page with refs > 1 is in more than one table: nobody changes it. Its
 *   refs can rise only while a table that holds it is shared.
 * - An entry of pages[] that is not NULL is replaced only under mmap_lock
 *   held for writing, by the one mm that has the table; so .fault cannot
 *   install a page that was just replaced.
 * - Nothing changes the content of a slot in a page that another mm can see.
 */
#ifndef TFD_TABLE_H
#define TFD_TABLE_H

#include <linux/atomic.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/trampfd.h>

#include "stub.h"

#define TFD_TABLE_PAGES	(TRAMPFD_TABLE_SIZE / PAGE_SIZE)

/* For memory that a user makes us take: no OOM killer, and no noise. */
#define TFD_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

enum tfd_charge { TFD_VIEWS, TFD_PAGES, TFD_CHARGES };

struct tfd_user;

/**
 * struct tfd_page - one page of slots
 * @refs: tables that hold it
 * @page: the memory
 * @user: who is charged for it
 */
struct tfd_page {
	refcount_t refs;
	struct page *page;
	struct tfd_user *user;
};

/**
 * struct tfd_table - the slots behind a pair of views
 * @views: VMAs that refer to the table; it is freed with the last
 * @data_views: data views among them, one for each mm
 * @lock: see above
 * @user: who is charged for the views
 * @stubs: address of the first stub, the same in every mm that has the table,
 *	since views cannot move
 * @pgoff: start of the range of page offsets that only this table and its
 *	copies after fork use, so that unmapping by offset hits no other table
 * @pages: NULL where no slot was ever SET
 */
struct tfd_table {
	refcount_t views;
	atomic_t data_views;
	struct mutex lock; /* pages[] and slots, see above */
	struct tfd_user *user;
	unsigned long stubs;
	pgoff_t pgoff;
	struct tfd_page *pages[TFD_TABLE_PAGES];
};

/**
 * struct tfd_pair - a code view with the data view behind it
 * @code: the VMA of the code view
 * @data: the VMA of the data view, of the same table
 * @table: their table
 */
struct tfd_pair {
	struct vm_area_struct *code;
	struct vm_area_struct *data;
	struct tfd_table *table;
};

/**
 * struct tfd_batch - the arguments of one SET or CLEAR, in kernel memory
 * @set: SET, else CLEAR
 * @count: entries, at least 1, at most the slots of a table
 * @bad: out: index of the first bad entry; @count if none is to blame
 * @slots: entries of SET, or NULL
 * @stubs: entries of CLEAR, or NULL
 * @run: the run, if neither @slots nor @stubs: slots from run.stub on
 * @data_stride: what the run adds to run.data from slot to slot
 * @seen: a bit for each slot of a table, to find duplicates; NULL for a run
 */
struct tfd_batch {
	bool set;
	u32 count;
	u32 bad;
	struct trampfd_slot *slots;
	u64 *stubs;
	struct trampfd_slot run;
	u64 data_stride;
	unsigned long *seen;
};

/**
 * struct tfd_target - what policy.c found last
 * @start: first address of the mapping that was found legal
 * @end: its end; 0: none yet. Valid only while mmap_lock is held
 */
struct tfd_target {
	unsigned long start;
	unsigned long end;
};

/* main.c */
extern bool tfd_strict_vma;
extern bool tfd_relaxed;
extern unsigned long tfd_max[TFD_CHARGES];
extern unsigned long tfd_ref_guard;
extern atomic_long_t tfd_live_tables;
extern atomic_long_t tfd_live_pages;
extern atomic_long_t tfd_live_views;

/* ioctl.c */
long tfd_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* table.c */
static inline unsigned int tfd_slots_per_table(void)
{
	return TFD_TABLE_PAGES * tfd_arch.slots_per_page;
}

/* Index of the stub at a distance from the first; -EINVAL if there is none. */
static inline int tfd_slot_index(unsigned long offset)
{
	const unsigned int in_page = offset_in_page(offset);

	if (in_page % tfd_arch.stride ||
	    in_page / tfd_arch.stride >= tfd_arch.slots_per_page)
		return -EINVAL;
	return (offset >> PAGE_SHIFT) * tfd_arch.slots_per_page +
	       in_page / tfd_arch.stride;
}

struct tfd_table *tfd_table_new(unsigned long stubs);
void tfd_table_put_view(struct tfd_table *table);
int tfd_apply(struct tfd_batch *batch);
int tfd_read(struct trampfd_slot *slots, u32 count, u32 *bad);

/* vma.c */
int tfd_vma_init(void);
void tfd_vma_exit(void);
int tfd_mmap(struct file *file, struct vm_area_struct *vma);
bool tfd_vma_is_view(const struct vm_area_struct *vma);
int tfd_pair_find(struct mm_struct *mm, u64 stub, struct tfd_pair *pair);
bool tfd_pair_sealed(const struct tfd_pair *pair);
void tfd_pair_switch(struct tfd_pair *pair, struct tfd_table *table);
void tfd_pair_unmap(const struct tfd_pair *pair, unsigned int page);
int tfd_seal(u64 stub);
int tfd_seal_all(void);

/* policy.c */
u32 tfd_policy(void);
int tfd_target_check(struct mm_struct *mm, u64 code, struct tfd_target *last);
int tfd_target_fault_in(u64 code);

/* account.c */
struct tfd_user *tfd_charge(struct tfd_user *user, enum tfd_charge what);
void tfd_charge_view(struct tfd_user *user);
void tfd_uncharge(struct tfd_user *user, enum tfd_charge what);
unsigned long tfd_charged(enum tfd_charge what);

#endif /* TFD_TABLE_H */
