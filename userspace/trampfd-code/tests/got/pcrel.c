/* The distance of a variable in 32 bits. */
__asm__(".text\n.globl near\nnear: leaq far_away(%rip), %rax\nret\n");
