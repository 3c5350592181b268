/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the contract tests have to know about x86-64. */
#ifndef TRAMPFD_TEST_ARCH_X86_H
#define TRAMPFD_TEST_ARCH_X86_H

#include <stdint.h>
#include <ucontext.h>

/* The register that tests use where any would do, by DWARF number: r10. */
#define REG_DEFAULT	10

/* rax rdx rcx rsi rdi r8 r9 r10 r11 */
#define LEGAL_REGS	0xf37ULL
#define SLOT_STRIDE	32

/* What no mapping can have for an address, with 4 or 5 levels of page tables. */
#define NON_CANONICAL	0x0100000000000000ULL
#define TAG		(1ULL << 57)

static inline uintptr_t context_pc(const ucontext_t *uc)
{
	return uc->uc_mcontext.gregs[REG_RIP];
}

/* The register REG_DEFAULT at the time of a signal. */
static inline uint64_t context_data(const ucontext_t *uc)
{
	return uc->uc_mcontext.gregs[REG_R10];
}

/* Position independent bytes of give_data, for files and memory that tests make. */
static const uint8_t give_data_bytes[] = {
	0xf3, 0x0f, 0x1e, 0xfa,		/* endbr64 */
	0x4c, 0x89, 0xd0,		/* mov %r10, %rax */
	0xc3,				/* ret */
};

/*
 * give_data: answers r10, so a call through a stub answers its data.
 * give_data_not: the same, inverted: a second target that one can tell apart.
 * keep_regs: stores the registers, by DWARF number, in seen_regs.
 * call_with_regs: calls rdi with register n holding REG_MARK(n), n not rsp.
 */
uint64_t give_data(void);
uint64_t give_data_not(void);
void keep_regs(void);
void call_with_regs(void *f);
extern uint64_t seen_regs[16];
#define REG_MARK(n)	(0x5a5a5a5a5a5a0000ULL + (n))

uint64_t seen_regs[16] __attribute__((visibility("hidden")));
uint64_t callee __attribute__((visibility("hidden")));

__asm__(
"	.pushsection .text\n"
"	.globl give_data, give_data_not, keep_regs, call_with_regs\n"
"	.hidden give_data, give_data_not, keep_regs, call_with_regs\n"
"	.p2align 4\n"
"give_data:\n"
"	endbr64\n"
"	mov	%r10, %rax\n"
"	ret\n"
"	.p2align 4\n"
"give_data_not:\n"
"	endbr64\n"
"	mov	%r10, %rax\n"
"	not	%rax\n"
"	ret\n"
"	.p2align 4\n"
"keep_regs:\n"
"	endbr64\n"
"	mov	%rax, seen_regs+0x00(%rip)\n"
"	mov	%rdx, seen_regs+0x08(%rip)\n"
"	mov	%rcx, seen_regs+0x10(%rip)\n"
"	mov	%rbx, seen_regs+0x18(%rip)\n"
"	mov	%rsi, seen_regs+0x20(%rip)\n"
"	mov	%rdi, seen_regs+0x28(%rip)\n"
"	mov	%rbp, seen_regs+0x30(%rip)\n"
"	mov	%rsp, seen_regs+0x38(%rip)\n"
"	mov	%r8,  seen_regs+0x40(%rip)\n"
"	mov	%r9,  seen_regs+0x48(%rip)\n"
"	mov	%r10, seen_regs+0x50(%rip)\n"
"	mov	%r11, seen_regs+0x58(%rip)\n"
"	mov	%r12, seen_regs+0x60(%rip)\n"
"	mov	%r13, seen_regs+0x68(%rip)\n"
"	mov	%r14, seen_regs+0x70(%rip)\n"
"	mov	%r15, seen_regs+0x78(%rip)\n"
"	ret\n"
"	.p2align 4\n"
"call_with_regs:\n"
"	endbr64\n"
"	push	%rbx\n"
"	push	%rbp\n"
"	push	%r12\n"
"	push	%r13\n"
"	push	%r14\n"
"	push	%r15\n"
"	sub	$8, %rsp\n"
"	mov	%rdi, callee(%rip)\n"
"	movabs	$0x5a5a5a5a5a5a0000, %rax\n"
"	lea	1(%rax), %rdx\n"
"	lea	2(%rax), %rcx\n"
"	lea	3(%rax), %rbx\n"
"	lea	4(%rax), %rsi\n"
"	lea	5(%rax), %rdi\n"
"	lea	6(%rax), %rbp\n"
"	lea	8(%rax), %r8\n"
"	lea	9(%rax), %r9\n"
"	lea	10(%rax), %r10\n"
"	lea	11(%rax), %r11\n"
"	lea	12(%rax), %r12\n"
"	lea	13(%rax), %r13\n"
"	lea	14(%rax), %r14\n"
"	lea	15(%rax), %r15\n"
"	call	*callee(%rip)\n"
"	add	$8, %rsp\n"
"	pop	%r15\n"
"	pop	%r14\n"
"	pop	%r13\n"
"	pop	%r12\n"
"	pop	%rbp\n"
"	pop	%rbx\n"
"	ret\n"
"	.popsection\n"
);

#endif /* TRAMPFD_TEST_ARCH_X86_H */
