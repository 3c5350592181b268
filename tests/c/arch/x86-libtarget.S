/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Text of a shared library: lib_give_data answers REG_DEFAULT. */
	.text
	.globl	lib_give_data
	.type	lib_give_data, @function
	.p2align 4
lib_give_data:
	endbr64
	mov	%r10, %rax
	ret
	.size	lib_give_data, . - lib_give_data
	.section .note.GNU-stack, "", @progbits
