/* Relocations that C has no words for. Values are read from tables in read-only data. */
__asm__(
".data\n"
".globl thing\n"
".type thing, @object\n"
".size thing, 12\n"
"thing: .long 1, 2, 3\n"
".section .rodata\n"
".globl table\n"
"table:\n"
"	.quad small + 1\n"			/* 0: 64 */
"	.quad thing - .\n"			/* 8: PC64 */
"	.quad thing@GOTOFF\n"			/* 16: GOTOFF64 */
"	.quad thing@GOT\n"			/* 24: GOT64 */
"	.quad thing@SIZE\n"			/* 32: SIZE64 */
"	.quad _GLOBAL_OFFSET_TABLE_ - .\n"	/* 40: GOTPC64 */
"	.quad thing@GOTPCREL\n"			/* 48: GOTPCREL64 */
"	.quad outside@PLTOFF\n"			/* 56: PLTOFF64 */
"	.long thing@SIZE + 1\n"			/* 64: SIZE32 */
"	.long thing - .\n"			/* 68: PC32 */
"	.long wide + 1\n"			/* 72: 32 */
"	.short wide\n"				/* 76: 16 */
"	.byte small\n"				/* 78: 8 */
"	.byte 0\n"
"	.long thing@GOT\n"			/* 80: GOT32 */
"	.long _GLOBAL_OFFSET_TABLE_ - .\n"	/* 84: GOTPC32 */
"	.quad thing@GOTPLT\n"			/* 88: GOTPLT64 */
);
