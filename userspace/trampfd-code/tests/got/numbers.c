/* Symbols that are numbers, and one that lies near. */
__asm__(".globl small, wide\n.set small, 0x5a\n.set wide, 0x1234\n"
	".text\n.globl after\nafter: ret\n");
