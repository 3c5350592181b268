/* A variable of threads, taken for one that has one address. */
__asm__(".text\n.globl wrong\nwrong: leaq first(%rip), %rax\nret\n");
