// SPDX-License-Identifier: GPL-2.0
/*
 * The stubs of x86-64.
 *
 *   code page, 128 stubs of 32 bytes            data page, 128 slots of 32 bytes
 *   +0   endbr64                                +0   data
 *   +4   mov   D(%rip), %R    --------------->  +8   code
 *   +11  jmp   *D+8(%rip)     --------------->  +16  (zero)
 *   +17  int3 ..
 *   +24  ud2                   <- where an empty slot jumps
 *   +26  int3 ..
 *
 * Both distances are the same in every stub, so that one page serves as every
 * page of every view. endbr64 makes the stub 17 bytes long, which is why the
 * stride is 32 and not 16.
 */
#include <linux/bits.h>
#include <linux/string.h>
#include <linux/trampfd.h>
#include <asm/cpufeature.h>
#include <asm/page.h>

#include "../stub.h"

#define STRIDE	32
#define TRAP	24

/* The psABI counts rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp; the CPU does not. */
static const u8 hw_reg[] = { 0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11 };

static void put_disp(u8 *at, u32 from, u32 to)
{
	const u32 disp = to - from;

	memcpy(at, &disp, sizeof(disp));
}

static void x86_fill(void *page, unsigned int reg)
{
	static const u8 endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };
	const u8 hw = hw_reg[reg];
	u8 *stub;

	memset(page, 0xcc, PAGE_SIZE);
	for (stub = page; stub < (u8 *)page + PAGE_SIZE; stub += STRIDE) {
		memcpy(stub, endbr64, sizeof(endbr64));

		stub[4] = 0x48 | (hw & 8 ? 4 : 0);	/* REX.W, REX.R */
		stub[5] = 0x8b;
		stub[6] = 0x05 | (hw & 7) << 3;		/* disp32(%rip) */
		put_disp(stub + 7, 11, TRAMPFD_TABLE_SIZE +
			 offsetof(struct tfd_slot, data));

		stub[11] = 0xff;
		stub[12] = 0x25;
		put_disp(stub + 13, 17, TRAMPFD_TABLE_SIZE +
			 offsetof(struct tfd_slot, code));

		stub[TRAP] = 0x0f;
		stub[TRAP + 1] = 0x0b;
	}
}

static unsigned long x86_trap(unsigned long stub)
{
	return stub + TRAP;
}

static bool x86_canonical(u64 addr)
{
	return __is_canonical_address(addr,
				      boot_cpu_has(X86_FEATURE_LA57) ? 57 : 48);
}

const struct tfd_arch tfd_arch = {
	.stride		= STRIDE,
	.slots_per_page	= PAGE_SIZE / STRIDE,
	/* rax, rdx, rcx, rsi, rdi, r8 to r11: what a call may clobber */
	.regs		= BIT_ULL(0) | BIT_ULL(1) | BIT_ULL(2) | BIT_ULL(4) |
			  BIT_ULL(5) | GENMASK_ULL(11, 8),
	.fill		= x86_fill,
	.trap		= x86_trap,
	.canonical	= x86_canonical,
};
