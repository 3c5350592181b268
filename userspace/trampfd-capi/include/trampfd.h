/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * trampfd.h - C function pointers with state, without memory that is writable
 * and executable. Link with -ltrampfd (pkg-config trampfd).
 *
 * A function pointer that carries a pointer of yours in the next argument:
 *
 *	static int by_key(const void *a, const void *b, void *key);
 *
 *	trampfd_function f = trampfd_new((trampfd_function)by_key, key,
 *					 TRAMPFD_ARG(2));
 *	qsort(base, count, size, (int (*)(const void *, const void *))f);
 *	trampfd_free(f);
 *
 * qsort calls f(a, b); by_key is entered as by_key(a, b, key). Nothing is
 * marshalled: f is a stub that loads one register and jumps.
 *
 * Every function may be called by any thread. A closure may be called by any
 * thread while it lives, also in a child of fork, and be freed by any thread.
 * No function may be called by a signal handler; closures may.
 *
 * What fails answers NULL, 0 or a code other than TRAMPFD_OK, changes nothing,
 * and leaves the code and a sentence about it for this thread
 * (trampfd_last_error, trampfd_detail). Only the few bytes of a type or a
 * signature are allocated as if memory did not end: without it the process
 * ends.
 *
 * The interface only grows. All integers have a fixed width; there is no
 * structure that a program of today and a library of tomorrow could see
 * differently.
 */
#ifndef TRAMPFD_H
#define TRAMPFD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRAMPFD_VERSION_MAJOR	0
#define TRAMPFD_VERSION_MINOR	1
#define TRAMPFD_VERSION_PATCH	0
#define TRAMPFD_VERSION \
	((uint32_t)TRAMPFD_VERSION_MAJOR << 16 | TRAMPFD_VERSION_MINOR << 8 | \
	 TRAMPFD_VERSION_PATCH)

/* TRAMPFD_VERSION of the library that is loaded. */
uint32_t trampfd_version(void);

/* ---- errors ------------------------------------------------------------ */

#define TRAMPFD_OK			0
#define TRAMPFD_ERROR_INVALID		1  /* null, or no such backend or type */
#define TRAMPFD_ERROR_NOT_TEXT		2  /* code lies in no text */
#define TRAMPFD_ERROR_REGISTER		3  /* no stub can load this register */
#define TRAMPFD_ERROR_NO_CLOSURE	4  /* there is no closure at this address */
#define TRAMPFD_ERROR_SEALED		5  /* trampfd_seal was called */
#define TRAMPFD_ERROR_UNAVAILABLE	6  /* the backend is not to be had here */
#define TRAMPFD_ERROR_GROWTH		7  /* the tables of stubs cannot be extended */
#define TRAMPFD_ERROR_UNSUPPORTED	8  /* this backend cannot do that */
#define TRAMPFD_ERROR_NO_MEMORY		9
#define TRAMPFD_ERROR_QUOTA		10 /* the user's limit in the kernel */
#define TRAMPFD_ERROR_SERVICE		11 /* the kernel refused a call */
#define TRAMPFD_ERROR_ZERO_SIZED	12 /* a type of no bytes */
#define TRAMPFD_ERROR_VOID		13 /* void as argument, member or element */
#define TRAMPFD_ERROR_ARRAY		14 /* an array as argument or result */
#define TRAMPFD_ERROR_ALIGNMENT		15 /* a packed or over-aligned type */
#define TRAMPFD_ERROR_TOO_LARGE		16 /* a type, or all arguments together */
#define TRAMPFD_ERROR_TOO_DEEP		17 /* structures within structures */
#define TRAMPFD_ERROR_OTHER		18 /* one that came after this list */

/* What a code means, in English; never NULL. */
const char *trampfd_strerror(int32_t error);

/* The code of this thread's last call that failed; TRAMPFD_OK if none did. */
int32_t trampfd_last_error(void);

/*
 * A sentence about it with the particulars: which address, what the kernel
 * said. "" if none failed. Good until this thread's next call that fails.
 */
const char *trampfd_detail(void);

/* ---- backends ---------------------------------------------------------- */

#define TRAMPFD_ANY	0 /* the kernel service where it works, else text */
#define TRAMPFD_KERNEL	1 /* stubs in pages that only the kernel writes */
#define TRAMPFD_TEXT	2 /* stubs in the library's own text: everywhere */

/*
 * TRAMPFD_OK if closures of this backend can be made here; else why not.
 * (TRAMPFD_ANY and TRAMPFD_TEXT are always there.)
 */
int32_t trampfd_support(int32_t backend);

/* The backend that TRAMPFD_ANY gives; 0: error. */
int32_t trampfd_default_backend(void);

/*
 * With the kernel service: no closure of this process can be changed or made
 * from now on, by anyone. TRAMPFD_ERROR_UNSUPPORTED on static text.
 */
int32_t trampfd_seal(void);

/* ---- closures of a register -------------------------------------------- */

/* Any function. C may call it only as the type that it has. */
typedef void (*trampfd_function)(void);

/*
 * Which register the closure loads `data` into: a DWARF number of the psABI,
 * or one of these, which mean the same on every architecture.
 *
 * TRAMPFD_ARG(n): what carries the integer or pointer argument n, from 0,
 * counting integer and pointer arguments only. So a function whose C signature
 * has n of those gets `data` as one more.
 * TRAMPFD_CHAIN: the static chain register, of nested functions.
 */
#define TRAMPFD_ARG(n)	(256 + (n))
#define TRAMPFD_CHAIN	511

/* The DWARF number of what TRAMPFD_ARG(n) or TRAMPFD_CHAIN is here; -1: none. */
int32_t trampfd_register(int32_t reg);

/*
 * A pointer that calls `code` with `data` in the register `reg`. With the
 * kernel service each one is a system call, and neither code nor data can be
 * changed by writing to memory. NULL: error.
 */
trampfd_function trampfd_new(trampfd_function code, void *data, int32_t reg);

/* The same of this backend or none. */
trampfd_function trampfd_new_on(int32_t backend, trampfd_function code,
				void *data, int32_t reg);

/* ---- types ------------------------------------------------------------- */

/*
 * A C type: one of these numbers, or what trampfd_struct, trampfd_union or
 * trampfd_array gave. 0 is no type.
 */
typedef uintptr_t trampfd_type;

#define TRAMPFD_VOID			((trampfd_type)1) /* a result only */
#define TRAMPFD_BOOL			((trampfd_type)2)
#define TRAMPFD_I8			((trampfd_type)3)
#define TRAMPFD_U8			((trampfd_type)4)
#define TRAMPFD_I16			((trampfd_type)5)
#define TRAMPFD_U16			((trampfd_type)6)
#define TRAMPFD_I32			((trampfd_type)7)
#define TRAMPFD_U32			((trampfd_type)8)
#define TRAMPFD_I64			((trampfd_type)9)
#define TRAMPFD_U64			((trampfd_type)10)
#define TRAMPFD_I128			((trampfd_type)11)
#define TRAMPFD_U128			((trampfd_type)12)
#define TRAMPFD_FLOAT			((trampfd_type)13)
#define TRAMPFD_DOUBLE			((trampfd_type)14)
#define TRAMPFD_LONG_DOUBLE		((trampfd_type)15)
#define TRAMPFD_COMPLEX_FLOAT		((trampfd_type)16)
#define TRAMPFD_COMPLEX_DOUBLE		((trampfd_type)17)
#define TRAMPFD_COMPLEX_LONG_DOUBLE	((trampfd_type)18)
#define TRAMPFD_POINTER			((trampfd_type)19)
#define TRAMPFD_CHAR			((trampfd_type)20)
#define TRAMPFD_SHORT			((trampfd_type)21)
#define TRAMPFD_USHORT			((trampfd_type)22)
#define TRAMPFD_INT			((trampfd_type)23)
#define TRAMPFD_UINT			((trampfd_type)24)
#define TRAMPFD_LONG			((trampfd_type)25)
#define TRAMPFD_ULONG			((trampfd_type)26)
#define TRAMPFD_LONG_LONG		((trampfd_type)27)
#define TRAMPFD_ULONG_LONG		((trampfd_type)28)
#define TRAMPFD_SIZE			((trampfd_type)29)

/*
 * Types made of others, laid out as C does. An array is a member only. 0:
 * error. What they are made of may be freed at once.
 */
trampfd_type trampfd_struct(const trampfd_type *members, size_t count);
trampfd_type trampfd_union(const trampfd_type *members, size_t count);
trampfd_type trampfd_array(trampfd_type element, size_t count);

/* Gives one of those back. Nothing happens to the numbers above, and to 0. */
void trampfd_type_free(trampfd_type type);

/* Bytes, alignment, and bytes to member or element n; 0, 0, SIZE_MAX: error. */
size_t trampfd_sizeof(trampfd_type type);
size_t trampfd_alignof(trampfd_type type);
size_t trampfd_offsetof(trampfd_type type, size_t n);

/* ---- closures of any signature ----------------------------------------- */

/* The arguments and result of a function, known at run time. */
typedef struct trampfd_signature trampfd_signature;

/* NULL: error. The types may be freed at once. */
trampfd_signature *trampfd_signature_new(const trampfd_type *args, size_t count,
					 trampfd_type result);

/* Closures that were made of it go on. NULL is nothing. */
void trampfd_signature_free(trampfd_signature *signature);

/*
 * What is called: args[n] points to argument n, result to room for the result,
 * which must be written if it is not void. Both have the types of the
 * signature, no wider ones. C++ exceptions pass.
 */
typedef void (*trampfd_handler)(const trampfd_signature *signature, void *result,
				void *const *args, void *data);

/* A pointer of this signature that calls `handler`. NULL: error. */
trampfd_function trampfd_dyn_new(trampfd_signature *signature,
				 trampfd_handler handler, void *data);

/* The same of this backend or none. */
trampfd_function trampfd_dyn_new_on(int32_t backend, trampfd_signature *signature,
				    trampfd_handler handler, void *data);

/* ---- both -------------------------------------------------------------- */

/* TRAMPFD_KERNEL or TRAMPFD_TEXT; 0: error. */
int32_t trampfd_backend(trampfd_function closure);

/*
 * Gives a closure of either kind back. NULL is nothing. Whoever calls it
 * afterwards gets SIGILL (static text: always; kernel: at latest after 256
 * more were freed), unless its place was given out anew.
 */
int32_t trampfd_free(trampfd_function closure);

#ifdef __cplusplus
}
#endif

#endif
