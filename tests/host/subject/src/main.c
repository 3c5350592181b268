// SPDX-License-Identifier: MIT OR Apache-2.0
/* Starts the subject where it is a library: linked, or with -DDLOPEN loaded. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#ifdef DLOPEN
int main(int argc, char **argv)
{
	/* Beside the program, and named as the program was. */
	char path[4096];
	char *slash = strrchr(argv[0], '/');
	void *library;
	int (*run)(int, char **);

	snprintf(path, sizeof(path), "%.*s/libsubject.so",
		 slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 5;
	}
	*(void **)&run = dlsym(library, "trampfd_subject");
	return run ? run(argc, argv) : 5;
}
#else
int trampfd_subject(int argc, char **argv);

int main(int argc, char **argv)
{
	return trampfd_subject(argc, argv);
}
#endif
