/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What lives.c wants of a library: closures that give back a number.
 *
 *	lives.c  ── make, right, drop ──►  libffi.c | nested.c | capi.c  ──►  library
 */
#ifndef LIVES_H
#define LIVES_H

/*
 * A closure. Where it lies is the stack of main(), each lower than the one
 * made before it, like the frames of a recursion.
 */
struct closure {
	void *a;
	void *b;
};

/* An address in the library under test; null: it is not there. */
const void *library(void);

/* 0, or -1: the library made none, and said so. */
int make(struct closure *closure, long answer);

/* Calls it. Does it give what it was made with? */
int right(const struct closure *closure, long answer);

/* Called in the order last made, first dropped. */
void drop(struct closure *closure);

#endif
