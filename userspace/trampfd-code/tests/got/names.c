/* One long name, and many short ones. */
#define FOUR(x) x x x x
#define LONG FOUR(FOUR(FOUR(FOUR(FOUR("a_name_of_16_or_")))))
__asm__(".globl " LONG "\n" LONG ":\n"
	".macro short\nname\\@: .byte 0\n.endm\n"
	".rept 1000\nshort\n.endr\n");
