/* Refers to a note, which is not loaded. */
__asm__(".section .note.here, \"a\", @note\n"
	"text: .asciz \"noted\"\n"
	".text\n"
	".globl noted\n"
	"noted: leaq text(%rip), %rax\n"
	"	ret\n");
