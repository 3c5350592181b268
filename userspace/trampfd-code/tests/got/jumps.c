/* Distances of 16 and 8 bits. */
__asm__(".text\n.globl jumps\njumps: .short after - .\n.byte after - .\n");
