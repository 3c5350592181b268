// SPDX-License-Identifier: GPL-2.0
/*
 * trampfd - trampolines without memory that is ever both writable and
 * executable.
 *
 * A device and nothing more: what is mapped and called through it is described
 * in include/uapi/linux/trampfd.h, how it works in table.h and vma.c. mmap of a
 * device is a door that security modules, seccomp, noexec mounts and audit
 * guard already, which is why there is no file system and no anonymous inode.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

#include "table.h"

static bool enabled = true;
module_param(enabled, bool, 0644);
MODULE_PARM_DESC(enabled, "Let the device be opened; what is open stays");

bool tfd_strict_vma;
module_param_named(strict_vma, tfd_strict_vma, bool, 0644);
MODULE_PARM_DESC(strict_vma, "Refuse targets in mappings with any private copy of a page");

bool tfd_relaxed;
module_param_named(relaxed, tfd_relaxed, bool, 0644);
MODULE_PARM_DESC(relaxed, "Accept any executable, non-writable target (for JITs)");

/*
 * A million trampolines take 62 tables, 124 views and (with 4 KiB pages and
 * stubs of 32 bytes) 7,813 pages.
 */
unsigned long tfd_max[TFD_CHARGES] = {
	[TFD_VIEWS] = 65536,
	[TFD_PAGES] = (512UL << 20) / PAGE_SIZE,
};
module_param_named(max_views, tfd_max[TFD_VIEWS], ulong, 0644);
MODULE_PARM_DESC(max_views, "Views that one user may have");
module_param_named(max_pages, tfd_max[TFD_PAGES], ulong, 0644);
MODULE_PARM_DESC(max_pages, "Pages of slots that one user may have");

/* A quarter of the way to the point where references are refused or saturate. */
unsigned long tfd_ref_guard = 1UL << 29;
module_param_named(ref_guard, tfd_ref_guard, ulong, 0644);
MODULE_PARM_DESC(ref_guard, "References to a code page from which on a fault is SIGBUS (debug)");

atomic_long_t tfd_live_tables;
atomic_long_t tfd_live_pages;
atomic_long_t tfd_live_views;

static int live_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(kp->arg));
}

static const struct kernel_param_ops live_ops = {
	.get = live_get,
};

module_param_cb(live_tables, &live_ops, &tfd_live_tables, 0444);
MODULE_PARM_DESC(live_tables, "Tables there are (read only)");
module_param_cb(live_pages, &live_ops, &tfd_live_pages, 0444);
MODULE_PARM_DESC(live_pages, "Pages of slots there are (read only)");
module_param_cb(live_views, &live_ops, &tfd_live_views, 0444);
MODULE_PARM_DESC(live_views, "Views there are (read only)");

static int tfd_open(struct inode *inode, struct file *file)
{
	return READ_ONCE(enabled) ? 0 : -ENODEV;
}

static const struct file_operations tfd_fops = {
	.owner		= THIS_MODULE,
	.open		= tfd_open,
	.mmap		= tfd_mmap,
	.unlocked_ioctl	= tfd_ioctl,
};

static struct miscdevice tfd_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "trampfd",
	.fops	= &tfd_fops,
	.mode	= 0444,
};

static int __init tfd_init(void)
{
	int err;

	err = tfd_vma_init();
	if (err)
		return err;
	err = misc_register(&tfd_device);
	if (err)
		tfd_vma_exit();
	return err;
}

static void __exit tfd_exit(void)
{
	misc_deregister(&tfd_device);
	tfd_vma_exit();
}

module_init(tfd_init);
module_exit(tfd_exit);

MODULE_DESCRIPTION("Trampolines without writable and executable memory");
MODULE_LICENSE("GPL");
