/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * x86-64: functions as the compiler makes nested ones. The static chain is in
 * r10; the frame that it points to begins with a long.
 *
 *	long nested_add(long a)		a + the frame's first word
 *	long nested_sub(long a)		a - the frame's first word
 *	long chain_value(...)		r10 itself
 *
 *	void single_step(int on)		SIGTRAP after each instruction from now on, or not
 */
__asm__(
	".text\n"
	".globl nested_add, nested_sub, chain_value\n"
	".type nested_add, @function\n"
	".type nested_sub, @function\n"
	".type chain_value, @function\n"
	"nested_add:\n"
	"	endbr64\n"
	"	mov (%r10), %rax\n"
	"	add %rdi, %rax\n"
	"	ret\n"
	"nested_sub:\n"
	"	endbr64\n"
	"	mov %rdi, %rax\n"
	"	sub (%r10), %rax\n"
	"	ret\n"
	"chain_value:\n"
	"	endbr64\n"
	"	mov %r10, %rax\n"
	"	ret\n"
	".globl single_step\n"
	".type single_step, @function\n"
	"single_step:\n"
	"	endbr64\n"
	"	pushfq\n"
	"	andq $~0x100, (%rsp)\n"
	"	test %edi, %edi\n"
	"	jz 1f\n"
	"	orq $0x100, (%rsp)\n"
	"1:	popfq\n"
	"	ret\n"
	"	.section .note.GNU-stack,\"\",@progbits\n"
	"	.text\n");

/* The DWARF numbers of the integer argument registers, in order, and r10. */
#define ARG_REGISTERS { 5, 4, 1, 2, 8, 9 }
#define CHAIN_REGISTER 10
