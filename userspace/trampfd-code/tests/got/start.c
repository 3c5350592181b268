extern void note(int);
__attribute__((constructor)) static void plain(void) { note(3); }
__attribute__((constructor(200))) static void late(void) { note(2); }
__attribute__((constructor(101))) static void early(void) { note(1); }
__attribute__((destructor)) static void last(void) { note(4); }
