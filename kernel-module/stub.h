/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What an architecture provides (arch/<name>.c), and nothing else may depend
 * on the architecture.
 */
#ifndef TFD_STUB_H
#define TFD_STUB_H

#include <linux/types.h>

/* What a stub reads, at stub + TRAMPFD_TABLE_SIZE in the data view. */
struct tfd_slot {
	u64 data;
	u64 code;
};

/**
 * struct tfd_arch - the stubs of one architecture
 * @stride: bytes from one stub to the next, and from one slot to the next
 * @slots_per_page: usable stubs in each page
 * @regs: bit n: DWARF register n may carry the data
 * @fill: write one code page, the same for every page of every view. It lies
 *	in stub order, and each stub finds its slot TRAMPFD_TABLE_SIZE ahead
 * @trap: where an empty slot jumps: a trap instruction in the page of the stub
 *	at the given address
 * @canonical: whether a 64-bit number is an address this CPU can jump to, with
 *	no tag in it
 */
struct tfd_arch {
	unsigned int stride;
	unsigned int slots_per_page;
	u64 regs;
	void (*fill)(void *page, unsigned int reg);
	unsigned long (*trap)(unsigned long stub);
	bool (*canonical)(u64 addr);
};

extern const struct tfd_arch tfd_arch;

#endif /* TFD_STUB_H */
