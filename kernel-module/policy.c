// SPDX-License-Identifier: GPL-2.0
/*
 * Which addresses a stub may jump to.
 *
 * The rule wanted is "text that nobody wrote and nobody can write just now". It
 * must be decided from the mapping, the file behind it and the page:
 *
 *   mapping   executable, not writable, private, of a file, not a view of ours
 *   file      not open for writing, not mapped shared and writable: what is
 *             written there shows through every private mapping of it
 *   page      not a private copy, which is what a write through ptrace, a text
 *             relocation or W->X protection changes leave behind
 *
 * Text written or unmapped after the check is not this file's business.
 */
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/shmem_fs.h>
#include <uapi/linux/fcntl.h>

#include "table.h"

/**
 * tfd_policy() - the policy in force
 *
 * Return: TRAMPFD_POLICY_* bits.
 */
u32 tfd_policy(void)
{
	u32 policy = 0;

	if (READ_ONCE(tfd_strict_vma))
		policy |= TRAMPFD_POLICY_STRICT_VMA;
	if (READ_ONCE(tfd_relaxed))
		policy |= TRAMPFD_POLICY_RELAXED;
	return policy;
}

/*
 * Files of a mount that only the kernel uses (memfd, SysV shared memory) were
 * made without open(), and their first descriptor is not counted as a writer:
 * there only a seal says that nobody writes.
 */
static bool kernel_file_may_be_written(struct inode *inode)
{
	if (!(inode->i_sb->s_flags & SB_KERNMOUNT))
		return false;
	if (inode->i_sb->s_magic != TMPFS_MAGIC || !IS_ENABLED(CONFIG_SHMEM))
		return true;
	return !(READ_ONCE(SHMEM_I(inode)->seals) &
		 (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

static bool file_may_be_written(const struct file *file)
{
	struct inode *inode = file_inode(file);

	return inode_is_open_for_write(inode) ||
	       mapping_writably_mapped(file->f_mapping) ||
	       kernel_file_may_be_written(inode);
}

/* Under mmap_lock. 0, or -EPERM; -EAGAIN if the page is not there to look at */
static int page_check(unsigned long addr)
{
	struct page *page;
	bool private_copy;

	if (get_user_pages_fast_only(addr & PAGE_MASK, 1, 0, &page) != 1)
		return -EAGAIN;
	private_copy = PageAnon(page);
	put_page(page);
	return private_copy ? -EPERM : 0;
}

/**
 * tfd_target_check() - decide about one target
 * @mm: the caller's, mmap_lock held
 * @code: the target
 * @last: remembers the mapping found legal, for the next target; clear it
 *	whenever mmap_lock is taken anew
 *
 * Return: 0; -EINVAL if @code is no address; -EPERM if it is not legal; -EAGAIN
 * if tfd_target_fault_in(), without locks, must come first.
 */
int tfd_target_check(struct mm_struct *mm, u64 code, struct tfd_target *last)
{
	const u32 policy = tfd_policy();
	struct vm_area_struct *vma;
	int err;

	if (code >= last->start && code < last->end)
		return 0;
	if (!tfd_arch.canonical(code))
		return -EINVAL;

	vma = vma_lookup(mm, code);
	if (!vma || !(vma->vm_flags & VM_EXEC) || (vma->vm_flags & VM_WRITE))
		return -EPERM;
	/* Never a stub: its own trap in a slot is what says that it is empty. */
	if (tfd_vma_is_view(vma))
		return -EPERM;

	if (!(policy & TRAMPFD_POLICY_RELAXED)) {
		if (!vma->vm_file || (vma->vm_flags & VM_SHARED) ||
		    file_may_be_written(vma->vm_file))
			return -EPERM;
		if (vma->anon_vma) {
			/* There may be private copies; uprobes make some too. */
			if (policy & TRAMPFD_POLICY_STRICT_VMA)
				return -EPERM;
			err = page_check(code);
			if (err)
				return err;
			last->start = code & PAGE_MASK;
			last->end = last->start + PAGE_SIZE;
			return 0;
		}
	}
	last->start = vma->vm_start;
	last->end = vma->vm_end;
	return 0;
}

/**
 * tfd_target_fault_in() - have the page of a target looked up by the CPU
 * @code: the target
 *
 * Sleeps, takes mmap_lock; what cannot be faulted in is left to the check.
 *
 * Return: 0, or -EINTR if the task is dying.
 */
int tfd_target_fault_in(u64 code)
{
	struct page *page;

	if (fatal_signal_pending(current))
		return -EINTR;
	if (get_user_pages_fast(code & PAGE_MASK, 1, 0, &page) == 1)
		put_page(page);
	cond_resched();
	return 0;
}
