/* Instructions through the table that could do without it, and those that could not. */
int here;
extern char small;
char *number(void) { return &small; }
__asm__(".text\n"
	".globl is_here\n"
	"is_here:\n"
	"	xor %eax, %eax\n"
	"	cmp here@GOTPCREL(%rip), %rdi\n"
	"	sete %al\n"
	"	ret\n");
