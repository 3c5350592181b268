/* Numbers of 32 bits, without a sign and with one. */
__asm__(".section .rodata\n"
	"	.long whole\n"
	".text\n"
	"	movq $half, %rax\n");
