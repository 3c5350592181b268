// SPDX-License-Identifier: GPL-2.0
/*
 * The two views: how they come, are found in pairs, fork, are sealed and go.
 *
 *   file offset of a VMA, in pages (not the one user space asked for):
 *
 *   table->pgoff                                        the next table's pgoff
 *   | data view | code view of register 0 | .. of register 63 | (spare) |
 *
 * Thus unmap_mapping_pages() reaches the views of one table and of its copies
 * after fork, and of nothing else; and the register of a code view needs no
 * place of its own.
 *
 * vm_private_data holds the table and, in its low bits, the seal: fork copies
 * both, and a seal never reaches the VMAs of another mm. It changes only under
 * mmap_lock held for writing.
 */
#include <linux/atomic.h>
#include <linux/compat.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "table.h"

#define SEALED		1UL	/* no SET, no CLEAR */
#define SEALED_ALL	2UL	/* no further mmap in this mm either */
#define TAGS		(SEALED | SEALED_ALL)

#define MAX_REGS	64
#define RANGE_PAGES	(2 * MAX_REGS * TFD_TABLE_PAGES)

static struct page *code_pages[MAX_REGS];

/* Ranges of file offsets given out; never reused. */
static atomic_long_t ranges;

/* Whether SEAL_ALL was ever called: until then mmap need not look for it. */
static bool seal_all_used;

static const struct vm_operations_struct code_ops;
static const struct vm_operations_struct data_ops;

static struct tfd_table *vma_table(const struct vm_area_struct *vma)
{
	return (struct tfd_table *)((unsigned long)vma->vm_private_data & ~TAGS);
}

static unsigned long vma_tags(const struct vm_area_struct *vma)
{
	return (unsigned long)vma->vm_private_data & TAGS;
}

static void vma_set(struct vm_area_struct *vma, struct tfd_table *table,
		    unsigned long tags)
{
	vma->vm_private_data = (void *)((unsigned long)table | tags);
}

/**
 * tfd_vma_is_view() - whether a VMA is one of ours
 * @vma: any VMA, mmap_lock held
 *
 * Return: true for a code view and for a data view.
 */
bool tfd_vma_is_view(const struct vm_area_struct *vma)
{
	return vma->vm_ops == &code_ops || vma->vm_ops == &data_ops;
}

/* The data view that belongs to a code view, or NULL. */
static struct vm_area_struct *partner(const struct vm_area_struct *code)
{
	struct vm_area_struct *data;

	data = vma_lookup(code->vm_mm, code->vm_start + TRAMPFD_TABLE_SIZE);
	if (data && data->vm_ops == &data_ops &&
	    vma_table(data) == vma_table(code))
		return data;
	return NULL;
}

/* What a view may be, asked by mmap and mprotect alike. */
static int may_map(bool data, vm_flags_t flags)
{
	if (flags & VM_WRITE)
		return -EACCES;
	if (data && (flags & VM_EXEC))
		return -EACCES;
	return 0;
}

static int view_mprotect(struct vm_area_struct *vma, unsigned long start,
			 unsigned long end, unsigned long newflags)
{
	return may_map(vma->vm_ops == &data_ops, newflags);
}

/* A view is whole and stays where it is: its slots hold its own addresses. */
static int view_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	return -EINVAL;
}

static int view_mremap(struct vm_area_struct *vma)
{
	return -EINVAL;
}

static vm_fault_t code_fault(struct vm_fault *vmf)
{
	const struct vm_area_struct *vma = vmf->vma;
	struct page *page;
	unsigned int reg;

	/* Without its slots a stub would load whatever lies there now. */
	if (!partner(vma))
		return VM_FAULT_SIGBUS;

	reg = (vma->vm_pgoff - vma_table(vma)->pgoff) / TFD_TABLE_PAGES - 1;
	page = code_pages[reg];
	/*
	 * One page stands behind all code views, and each mapped page of each
	 * view counts. Stop long before the counter is full.
	 */
	if (page_count(page) >= READ_ONCE(tfd_ref_guard))
		return VM_FAULT_SIGBUS;
	get_page(page);
	vmf->page = page;
	return 0;
}

static vm_fault_t data_fault(struct vm_fault *vmf)
{
	const struct vm_area_struct *vma = vmf->vma;
	unsigned long i = (vmf->address - vma->vm_start) >> PAGE_SHIFT;
	struct tfd_page *p;

	if (i >= TFD_TABLE_PAGES)
		return VM_FAULT_SIGBUS;
	/* Pairs with the release that put it there, after it was filled. */
	p = smp_load_acquire(&vma_table(vma)->pages[i]);
	if (!p)
		return VM_FAULT_SIGBUS;
	get_page(p->page);
	vmf->page = p->page;
	return 0;
}

static void view_open(struct vm_area_struct *vma)
{
	struct tfd_table *table = vma_table(vma);

	refcount_inc(&table->views);
	if (vma->vm_ops == &data_ops)
		atomic_inc(&table->data_views);
	tfd_charge_view(table->user);
	atomic_long_inc(&tfd_live_views);
}

static void view_close(struct vm_area_struct *vma)
{
	atomic_long_dec(&tfd_live_views);
	tfd_table_put_view(vma_table(vma));
}

static void data_close(struct vm_area_struct *vma)
{
	struct tfd_table *table = vma_table(vma);

	/*
	 * The code view must not go on with what is mapped here next. From now
	 * on its faults find no partner; this removes the pages it has already.
	 * The address is not reused before this returns. An mm without users
	 * runs no code any more, and its relatives need not refault.
	 */
	if (atomic_read(&vma->vm_mm->mm_users))
		unmap_mapping_pages(vma->vm_file->f_mapping,
				    table->pgoff + TFD_TABLE_PAGES,
				    MAX_REGS * TFD_TABLE_PAGES, false);

	/* Last use of the slots here: a relative may be alone with them now. */
	atomic_dec_return_release(&table->data_views);
	view_close(vma);
}

static const struct vm_operations_struct code_ops = {
	.open		= view_open,
	.close		= view_close,
	.may_split	= view_may_split,
	.mremap		= view_mremap,
	.mprotect	= view_mprotect,
	.fault		= code_fault,
};

static const struct vm_operations_struct data_ops = {
	.open		= view_open,
	.close		= data_close,
	.may_split	= view_may_split,
	.mremap		= view_mremap,
	.mprotect	= view_mprotect,
	.fault		= data_fault,
};

/* Under mmap_lock. Whether SEAL_ALL was called in this mm. */
static bool mm_sealed(struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	unsigned long addr = 0;

	if (!READ_ONCE(seal_all_used))
		return false;
	while ((vma = find_vma(mm, addr))) {
		if (tfd_vma_is_view(vma) && (vma_tags(vma) & SEALED_ALL))
			return true;
		addr = vma->vm_end;
		cond_resched();
	}
	return false;
}

static int new_range(pgoff_t *pgoff)
{
	const unsigned long max = ULONG_MAX / RANGE_PAGES - 1;
	long old = atomic_long_read(&ranges);

	do {
		if (old >= max)
			return -ENOSPC;
	} while (!atomic_long_try_cmpxchg(&ranges, &old, old + 1));
	*pgoff = old * RANGE_PAGES;
	return 0;
}

static int map_data(struct vm_area_struct *vma)
{
	struct tfd_table *table;
	struct tfd_user *user;
	pgoff_t pgoff;
	int err;

	err = new_range(&pgoff);
	if (err)
		return err;
	user = tfd_charge(NULL, TFD_VIEWS);
	if (IS_ERR(user))
		return PTR_ERR(user);
	table = tfd_table_new(vma->vm_start - TRAMPFD_TABLE_SIZE);
	if (!table) {
		tfd_uncharge(user, TFD_VIEWS);
		return -ENOMEM;
	}
	table->user = user;
	table->pgoff = pgoff;

	vma->vm_pgoff = pgoff;
	vm_flags_mod(vma, VM_DONTEXPAND, VM_MAYWRITE | VM_MAYEXEC);
	vma_set(vma, table, 0);
	vma->vm_ops = &data_ops;
	return 0;
}

static int map_code(struct vm_area_struct *vma, unsigned int reg)
{
	struct vm_area_struct *data;
	struct tfd_table *table;
	struct tfd_user *user;

	data = vma_lookup(vma->vm_mm, vma->vm_start + TRAMPFD_TABLE_SIZE);
	if (!data || data->vm_ops != &data_ops ||
	    data->vm_start != vma->vm_start + TRAMPFD_TABLE_SIZE)
		return -EINVAL;
	/* data_close() unmaps the code view by the offset in its own file. */
	if (data->vm_file->f_mapping != vma->vm_file->f_mapping)
		return -EINVAL;

	/* Another register would change what every stub of the table does. */
	if (vma_tags(data) & SEALED)
		return -EPERM;

	table = vma_table(data);
	user = tfd_charge(table->user, TFD_VIEWS);
	if (IS_ERR(user))
		return PTR_ERR(user);
	refcount_inc(&table->views);

	vma->vm_pgoff = table->pgoff + (1 + reg) * TFD_TABLE_PAGES;
	vm_flags_mod(vma, VM_DONTEXPAND, VM_MAYWRITE);
	vma_set(vma, table, 0);
	vma->vm_ops = &code_ops;
	return 0;
}

/**
 * tfd_mmap() - the device's mmap
 * @file: the device
 * @vma: the new mapping; mmap_lock is held for writing
 *
 * Return: 0 or an errno of the table in the header.
 */
int tfd_mmap(struct file *file, struct vm_area_struct *vma)
{
	const u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	const bool data = offset == TRAMPFD_OFF_DATA;
	const u64 reg = offset / TRAMPFD_OFF_UNIT - 0x100;
	int err;

	if (in_compat_syscall())
		return -ENODEV;
	if (vma->vm_end - vma->vm_start != TRAMPFD_TABLE_SIZE)
		return -EINVAL;
	if (!data && (offset % TRAMPFD_OFF_UNIT || reg >= MAX_REGS ||
		      !(tfd_arch.regs & BIT_ULL(reg))))
		return -EINVAL;
	err = may_map(data, vma->vm_flags);
	if (err)
		return err;
	if (mm_sealed(vma->vm_mm))
		return -EPERM;

	err = data ? map_data(vma) : map_code(vma, reg);
	if (!err)
		atomic_long_inc(&tfd_live_views);
	return err;
}

/**
 * tfd_pair_find() - the views that a stub lies in
 * @mm: the caller's, mmap_lock held
 * @stub: address in a code view
 * @pair: filled in; valid as long as mmap_lock is held
 *
 * Return: 0, -EFAULT if @stub is in no code view, -ENXIO if its data view is
 * not there.
 */
int tfd_pair_find(struct mm_struct *mm, u64 stub, struct tfd_pair *pair)
{
	pair->code = vma_lookup(mm, stub);
	if (!pair->code || pair->code->vm_ops != &code_ops)
		return -EFAULT;
	pair->data = partner(pair->code);
	if (!pair->data)
		return -ENXIO;
	pair->table = vma_table(pair->code);
	return 0;
}

/**
 * tfd_pair_sealed() - whether SET and CLEAR are refused
 * @pair: from tfd_pair_find()
 *
 * Return: true if the caller sealed the table, or all.
 */
bool tfd_pair_sealed(const struct tfd_pair *pair)
{
	return vma_tags(pair->code) & SEALED;
}

/**
 * tfd_pair_switch() - let a pair have another table
 * @pair: from tfd_pair_find(), mmap_lock held for writing
 * @table: made by tfd_table_new(), with its range and charges set; its
 *	references now belong to the two VMAs
 *
 * Drops the references to the old table, which must not be locked.
 */
void tfd_pair_switch(struct tfd_pair *pair, struct tfd_table *table)
{
	struct tfd_table *old = pair->table;

	refcount_inc(&table->views);
	vma_set(pair->code, table, vma_tags(pair->code));
	vma_set(pair->data, table, vma_tags(pair->data));
	pair->table = table;

	atomic_dec_return_release(&old->data_views);
	tfd_table_put_view(old);
	tfd_table_put_view(old);
}

/**
 * tfd_pair_unmap() - take a page of slots out of all page tables
 * @pair: from tfd_pair_find(), mmap_lock held for writing
 * @page: index of the page
 *
 * Relatives by fork fault their own page in again.
 */
void tfd_pair_unmap(const struct tfd_pair *pair, unsigned int page)
{
	unmap_mapping_pages(pair->data->vm_file->f_mapping,
			    pair->table->pgoff + page, 1, false);
}

static void seal_vma(struct vm_area_struct *vma, unsigned long tags)
{
	vma_set(vma, vma_table(vma), vma_tags(vma) | tags);
}

/**
 * tfd_seal() - seal one table of the caller
 * @stub: address of any of its stubs
 *
 * Return: 0, -EINVAL, -EFAULT or -ENXIO as the header says.
 */
int tfd_seal(u64 stub)
{
	struct mm_struct *mm = current->mm;
	struct tfd_pair pair;
	int err;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	err = tfd_pair_find(mm, stub, &pair);
	if (!err && tfd_slot_index(stub - pair.code->vm_start) < 0)
		err = -EINVAL;
	if (!err) {
		seal_vma(pair.code, SEALED);
		seal_vma(pair.data, SEALED);
	}
	mmap_write_unlock(mm);
	return err;
}

/**
 * tfd_seal_all() - seal all tables of the caller, and mmap
 *
 * Return: 0, or -ENXIO if there is no view that could carry the seal.
 */
int tfd_seal_all(void)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	unsigned long addr = 0;
	int err = -ENXIO;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	while ((vma = find_vma(mm, addr))) {
		if (tfd_vma_is_view(vma)) {
			seal_vma(vma, SEALED | SEALED_ALL);
			err = 0;
		}
		addr = vma->vm_end;
		cond_resched();
	}
	if (!err)
		WRITE_ONCE(seal_all_used, true);
	mmap_write_unlock(mm);
	return err;
}

/**
 * tfd_vma_init() - make the code pages
 *
 * Return: 0 or -ENOMEM.
 */
int tfd_vma_init(void)
{
	unsigned int reg;

	for (reg = 0; reg < MAX_REGS; reg++) {
		if (!(tfd_arch.regs & BIT_ULL(reg)))
			continue;
		code_pages[reg] = alloc_page(GFP_KERNEL);
		if (!code_pages[reg]) {
			tfd_vma_exit();
			return -ENOMEM;
		}
		tfd_arch.fill(page_address(code_pages[reg]), reg);
		flush_dcache_page(code_pages[reg]);
	}
	return 0;
}

/**
 * tfd_vma_exit() - give the code pages back
 *
 * No view is left then: each holds a reference to the module through its file.
 */
void tfd_vma_exit(void)
{
	unsigned int reg;

	for (reg = 0; reg < MAX_REGS; reg++) {
		if (code_pages[reg])
			put_page(code_pages[reg]);
	}
}
