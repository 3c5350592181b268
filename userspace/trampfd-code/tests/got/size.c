/* Sizes of a variable that is common, and of one that is somewhere else. */
int table[3];
int first(void) { return table[0]; }
__asm__(".pushsection .rodata\n"
	".globl sizes\n"
	"sizes: .quad table@SIZE\n"
#ifdef ELSEWHERE
	"	.quad elsewhere@SIZE\n"
#endif
	".popsection\n");
