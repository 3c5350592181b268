/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The only file that knows kernel versions; Kbuild includes it before all
 * others. The rest is written for the newest kernel.
 */
#ifndef TFD_COMPAT_H
#define TFD_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "trampfd needs Linux 6.1 or newer"
#endif

#ifndef __ASSEMBLY__
#include <linux/mm.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_mod(struct vm_area_struct *vma,
				vm_flags_t set, vm_flags_t clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#endif

#endif /* __ASSEMBLY__ */
#endif /* TFD_COMPAT_H */
