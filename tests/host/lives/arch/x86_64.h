/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* x86-64: another calling convention, and a nested function as GCC makes it. */

#define OTHER_ABI FFI_GNUW64
#define OTHER_CALL __attribute__((ms_abi))

/* long(long), with its frame in r10. */
void add_first_word_of_chain(void);
#ifdef LIVES_NESTED
asm("	.text\n"
    "	.type add_first_word_of_chain, @function\n"
    "	.globl add_first_word_of_chain\n"
    "add_first_word_of_chain:\n"
    "	endbr64\n"
    "	movq (%r10), %rax\n"
    "	addq %rdi, %rax\n"
    "	ret\n"
    "	.size add_first_word_of_chain, . - add_first_word_of_chain\n");
#endif
