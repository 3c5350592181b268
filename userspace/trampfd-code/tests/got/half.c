/* 40 MiB, common or not by the flags. */
char name[40 << 20];
