/* Where a variable of threads is, in 64 bits. */
extern __thread int mine;
int *address_of_mine(void) { return &mine; }
__asm__(".pushsection .rodata\n"
	".globl offsets\n"
	"offsets:\n"
	"	.quad mine@DTPOFF\n"
#ifdef FIXED
	"	.quad mine@TPOFF\n"
#endif
	".popsection\n");
