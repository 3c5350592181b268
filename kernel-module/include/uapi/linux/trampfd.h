/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * trampfd - trampolines that no user space memory write can change
 *
 * A program opens /dev/trampfd and maps a *table*: a pair of views of
 * TRAMPFD_TABLE_SIZE bytes each at one fixed distance.
 *
 *	start                                 start + TRAMPFD_TABLE_SIZE
 *	+--------------------------------------+-------------------------------+
 *	| code view, R-X                       | data view, R--                |
 *	| stub 0: landing pad                  | slot 0: { data, code }        |
 *	|         R   <- slot 0.data           |                               |
 *	|         jump   slot 0.code           |                               |
 *	| stub 1: ...                          | slot 1: ...                   |
 *	+--------------------------------------+-------------------------------+
 *
 * The data view is mapped first, at offset TRAMPFD_OFF_DATA; then the code
 * view, TRAMPFD_TABLE_SIZE below it, at offset TRAMPFD_OFF_CODE(reg). Both
 * mappings are exactly TRAMPFD_TABLE_SIZE bytes. Every page of a code view is
 * the same physical page, written once when the module was loaded; only the
 * calls below write slots. A slot is always named by the address of its *stub*
 * in the code view, so that the kernel has seen both views before a program
 * hands the address out. Calls act on the tables of the calling process only,
 * whichever trampfd fd is used.
 *
 * A slot is empty or live. An empty slot holds { stub address, address of a
 * trap instruction inside the code view }: calling it is SIGILL. A page of
 * slots none of which was ever SET is not there: touching it, or calling one
 * of its stubs, is SIGBUS.
 *
 * General ioctl format
 * --------------------
 * Every command is _IO(TRAMPFD_IOC_TYPE, nr): the size is in the struct, so a
 * struct that grew is not a new command. Every struct begins with
 * { __u32 size; __u32 flags; }, size being what the caller was compiled with.
 * Fields that this kernel does not know must be zero; fields that the caller
 * does not know are taken as zero. On return the kernel writes back the fields
 * marked "out" that lie within the caller's size, zeroes what the caller has
 * beyond the kernel's struct, and stores in size the size the kernel knows.
 * Array entries never grow.
 *
 * Errors
 * ------
 * On any error nothing has changed. SET, CLEAR and GET write the index of the
 * first bad entry into "bad" (for a fault that concerns no entry, count).
 *
 *  ENOTTY   the command number is unknown; or a 32-bit or x32 caller
 *  EINVAL   size is below the first version of the struct; unknown flag; a
 *           field that must be zero here is not; count is 0; a stub address
 *           that is not a multiple of the stride, or lies behind the usable
 *           slots of its page; the same slot twice in one call; code is tagged
 *           or not canonical
 *  E2BIG    non-zero bytes behind the struct this kernel knows, or size above
 *           one page; count above the slots of a table; a run that leaves its
 *           table
 *  EFAULT   the struct or array cannot be read or written; the stub address is
 *           not in a code view of the caller
 *  ENXIO    the code view has no data view behind it; SEAL_ALL in a process
 *           that has no table (there is nothing the seal could be kept on)
 *  EXDEV    the slots of one call lie in more than one table
 *  EBUSY    SET: the slot is live. CLEAR it first, when no thread runs in it
 *  EPERM    SET: code is not a legal target (see TRAMPFD_POLICY_*);
 *           SET, CLEAR: the table is sealed
 *  EAGAIN   SET: the page of code could not be looked at now; try again
 *  EDQUOT   the user's limit of views or pages is reached
 *  ENOMEM   no memory, or the memory limit of the caller's cgroup is reached
 *
 * mmap
 *  EINVAL   length is not TRAMPFD_TABLE_SIZE; unknown offset; register not
 *           legal; code view: no data view of the same device node at
 *           start + TRAMPFD_TABLE_SIZE; a partial mprotect, munmap, or any
 *           mremap of a view
 *  EACCES   PROT_WRITE; PROT_EXEC on a data view (also by READ_IMPLIES_EXEC)
 *  EPERM    the process is sealed (TRAMPFD_SEAL_ALL); code view: its data view
 *           is sealed; PROT_EXEC on a noexec mount (from the kernel's core)
 *  EDQUOT   the user's limit of views is reached
 *  ENOSPC   the module has given out all its table ranges
 *  ENODEV   a 32-bit or x32 caller
 *  ENOMEM   no memory
 */
#ifndef _UAPI_LINUX_TRAMPFD_H
#define _UAPI_LINUX_TRAMPFD_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Grows when a promise of this header changes or is added to. */
#define TRAMPFD_ABI_VERSION	1

/* Bytes of one view, and the distance from a stub to its slot. */
#define TRAMPFD_TABLE_SIZE	0x80000

/*
 * Offsets for mmap, in bytes; multiples of 64 KiB so that they are offsets on
 * every page size. @reg is the register's DWARF number in the psABI of the
 * architecture.
 *
 * Legal registers (each other number is EINVAL), also in trampfd_info.regs:
 *  x86-64   0 rax, 1 rdx, 2 rcx, 4 rsi, 5 rdi, 8 r8, 9 r9, 10 r10, 11 r11
 *  arm64    0-15 x0-x15, 17 x17 (x16 carries the jump, x18 is the platform's)
 *  riscv64  5 t0, 6 t1, 7 t2, 10-17 a0-a7, 29-31 t4-t6 (t3 carries the jump)
 */
#define TRAMPFD_OFF_UNIT	0x10000
#define TRAMPFD_OFF_DATA	0
#define TRAMPFD_OFF_CODE(reg)	(((reg) + 0x100) * TRAMPFD_OFF_UNIT)

#define TRAMPFD_IOC_TYPE	0xB7

/**
 * struct trampfd_info - what this kernel offers (TRAMPFD_INFO)
 * @size: sizeof(struct trampfd_info)
 * @flags: must be 0
 * @abi_version: out: TRAMPFD_ABI_VERSION of the module
 * @slot_stride: out: bytes from one stub to the next, and one slot to the next
 * @slots_per_page: out: usable slots in each page; slot i of a table is at
 *	page i / slots_per_page, byte (i % slots_per_page) * slot_stride
 * @page_size: out: bytes of a page
 * @slots_per_table: out: usable slots of a table
 * @policy: out: TRAMPFD_POLICY_* in force
 * @regs: out: bit n set: register with DWARF number n is legal
 * @features: out: TRAMPFD_FEATURE_*
 * @max_views: out: views that one user may have
 * @user_views: out: views that the caller's user has now
 * @max_pages: out: pages of slots that one user may have
 * @user_pages: out: pages of slots charged to the caller's user now
 */
struct trampfd_info {
	__u32 size;
	__u32 flags;
	__u32 abi_version;
	__u32 slot_stride;
	__u32 slots_per_page;
	__u32 page_size;
	__u32 slots_per_table;
	__u32 policy;
	__u64 regs;
	__u64 features;
	__u64 max_views;
	__u64 user_views;
	__u64 max_pages;
	__u64 user_pages;
};

/*
 * Which targets SET accepts as code. By default it must lie in a mapping that
 * is executable, not writable, of a file, private, not a trampfd view, whose
 * inode is at that moment not open for writing and has no shared writable
 * mapping, and the page it lies in must not be a private copy. The first fd of
 * a memfd is not counted as open for writing, so a memfd must carry
 * F_SEAL_WRITE or F_SEAL_FUTURE_WRITE as well.
 */
#define TRAMPFD_POLICY_STRICT_VMA	(1U << 0) /* refuse any mapping with private copies */
#define TRAMPFD_POLICY_RELAXED		(1U << 1) /* any executable, non-writable mapping */

#define TRAMPFD_FEATURE_STRIDED		(1ULL << 0) /* TRAMPFD_SET_STRIDED */
#define TRAMPFD_FEATURE_SEAL		(1ULL << 1) /* TRAMPFD_SEAL, TRAMPFD_SEAL_ALL */

/**
 * struct trampfd_slot - one entry of SET and GET
 * @stub: address of the stub in a code view
 * @code: where the stub jumps; GET: 0 for an empty slot
 * @data: what the stub loads into its register, never dereferenced; GET: 0
 *	for an empty slot
 */
struct trampfd_slot {
	__u64 stub;
	__u64 code;
	__u64 data;
};

/**
 * struct trampfd_set - bind empty slots (TRAMPFD_SET)
 * @size: sizeof(struct trampfd_set)
 * @flags: 0 or TRAMPFD_SET_STRIDED
 * @count: number of slots, at least 1, at most those of a table
 * @bad: out: on error the index of the first bad entry
 * @entries: address of @count struct trampfd_slot; 0 with STRIDED
 * @stub: STRIDED: first slot, the run goes on in slot order, from page to page;
 *	else 0
 * @code: STRIDED: target of all slots; else 0
 * @data: STRIDED: data of the first slot; else 0
 * @data_stride: STRIDED: added to data from slot to slot (modulo 2^64); else 0
 */
struct trampfd_set {
	__u32 size;
	__u32 flags;
	__u32 count;
	__u32 bad;
	__u64 entries;
	__u64 stub;
	__u64 code;
	__u64 data;
	__u64 data_stride;
};

#define TRAMPFD_SET_STRIDED	(1U << 0)

/**
 * struct trampfd_clear - make slots empty again (TRAMPFD_CLEAR)
 * @size: sizeof(struct trampfd_clear)
 * @flags: 0 or TRAMPFD_CLEAR_RANGE
 * @count: number of slots, at least 1, at most those of a table
 * @bad: out: on error the index of the first bad entry
 * @entries: address of @count __u64 stub addresses; 0 with RANGE
 * @stub: RANGE: first slot; else 0
 *
 * Clearing an empty slot is no error. The caller promises that no thread runs
 * in the stubs at that moment; one that does may jump to the trap.
 */
struct trampfd_clear {
	__u32 size;
	__u32 flags;
	__u32 count;
	__u32 bad;
	__u64 entries;
	__u64 stub;
};

#define TRAMPFD_CLEAR_RANGE	(1U << 0)

/**
 * struct trampfd_get - read slots of the calling process (TRAMPFD_GET)
 * @size: sizeof(struct trampfd_get)
 * @flags: must be 0
 * @count: number of slots, at least 1, at most those of a table
 * @bad: out: on error the index of the first bad entry
 * @entries: address of @count struct trampfd_slot: stub is read, code and data
 *	are written. The slots may lie in different tables, sealed ones too
 */
struct trampfd_get {
	__u32 size;
	__u32 flags;
	__u32 count;
	__u32 bad;
	__u64 entries;
};

/**
 * struct trampfd_seal - no more changes (TRAMPFD_SEAL)
 * @size: sizeof(struct trampfd_seal)
 * @flags: 0 or TRAMPFD_SEAL_ALL
 * @stub: address of any stub of the table to seal; 0 with TRAMPFD_SEAL_ALL
 *
 * A sealed table refuses SET, CLEAR and another code view (EPERM).
 * TRAMPFD_SEAL_ALL seals every table of the process and refuses any further
 * mmap of the device (EPERM). fork hands the seal down, exec ends it; a
 * child's seal is its own.
 */
struct trampfd_seal {
	__u32 size;
	__u32 flags;
	__u64 stub;
};

#define TRAMPFD_SEAL_ALL	(1U << 0)

#define TRAMPFD_INFO	_IO(TRAMPFD_IOC_TYPE, 0x00)
#define TRAMPFD_SET	_IO(TRAMPFD_IOC_TYPE, 0x01)
#define TRAMPFD_CLEAR	_IO(TRAMPFD_IOC_TYPE, 0x02)
#define TRAMPFD_GET	_IO(TRAMPFD_IOC_TYPE, 0x03)
#define TRAMPFD_SEAL	_IO(TRAMPFD_IOC_TYPE, 0x04)

#endif /* _UAPI_LINUX_TRAMPFD_H */
