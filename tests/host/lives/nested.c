// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Pointers to nested functions, asked for as GCC asks (-ftrampoline-impl=heap).
 * A struct closure is the frame of the outer function. LIVES_LINKED: the
 * runtime is linked into the program.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

#include "lives.h"

#define LIVES_NESTED
#if defined(__x86_64__)
#include "arch/x86_64.h"
#endif

#ifdef LIVES_LINKED
void created(void *chain, void *func, void *dst) __asm__("__gcc_nested_func_ptr_created");
void deleted(void) __asm__("__gcc_nested_func_ptr_deleted");

const void *library(void)
{
	return (const void *)created;
}
#else
static void (*created)(void *chain, void *func, void *dst);
static void (*deleted)(void);

/* By name, since this machine's own libgcc may not have them. */
const void *library(void)
{
	*(void **)&created = dlsym(RTLD_DEFAULT, "__gcc_nested_func_ptr_created");
	*(void **)&deleted = dlsym(RTLD_DEFAULT, "__gcc_nested_func_ptr_deleted");
	return created && deleted ? (const void *)created : NULL;
}
#endif

int make(struct closure *closure, long answer)
{
	closure->a = (void *)answer;
	closure->b = NULL;
	created(closure, (void *)add_first_word_of_chain, &closure->b);
	return closure->b ? 0 : -1;
}

int right(const struct closure *closure, long answer)
{
	return ((long (*)(long))closure->b)(42) == answer + 42;
}

void drop(struct closure *closure)
{
	(void)closure;
	deleted();
}
