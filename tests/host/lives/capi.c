// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Closures of trampfd.h: of a register, and of signatures
 * known at run time, in turn.
 */
#include <stddef.h>
#include <trampfd.h>

#include "lives.h"

enum {
	REGISTER,	/* long(long, long), with one argument more */
	ALL_REGISTERS,	/* long(five longs), with the last register more */
	FLOATS,		/* double(double, double), by a signature */
	PAIRS,		/* struct pair(struct pair, long), by a signature */
	KINDS
};

struct pair {
	int32_t a;
	double b;
};

static trampfd_signature *floats, *pairs;

static long of_register(long a, long b, void *data)
{
	return (long)data + a - b;
}

static long of_all_registers(long a, long b, long c, long d, long e, void *data)
{
	return (long)data + a + 2 * b + 3 * c + 4 * d + 5 * e;
}

static void on_floats(const trampfd_signature *signature, void *result,
		      void *const *args, void *data)
{
	(void)signature;
	*(double *)result = (long)data + *(double *)args[0] / *(double *)args[1];
}

static void on_pairs(const trampfd_signature *signature, void *result,
		     void *const *args, void *data)
{
	const struct pair *pair = args[0];

	(void)signature;
	*(struct pair *)result = (struct pair){
		pair->a - 1,
		pair->b + (long)data - *(long *)args[1],
	};
}

const void *library(void)
{
	return trampfd_free;
}

/* Once; 0 or -1. */
static int make_signatures(void)
{
	trampfd_type two[] = { TRAMPFD_DOUBLE, TRAMPFD_DOUBLE };
	trampfd_type members[] = { TRAMPFD_I32, TRAMPFD_DOUBLE };
	trampfd_type args[] = { trampfd_struct(members, 2), TRAMPFD_LONG };

	floats = trampfd_signature_new(two, 2, TRAMPFD_DOUBLE);
	pairs = trampfd_signature_new(args, 2, args[0]);
	trampfd_type_free(args[0]);
	return floats && pairs ? 0 : -1;
}

int make(struct closure *closure, long answer)
{
	trampfd_function made = NULL;

	if (!pairs && make_signatures())
		return -1;
	switch ((answer / 64) % KINDS) {
	case REGISTER:
		made = trampfd_new((trampfd_function)of_register, (void *)answer,
				   TRAMPFD_ARG(2));
		break;
	case ALL_REGISTERS:
		made = trampfd_new((trampfd_function)of_all_registers, (void *)answer,
				   TRAMPFD_ARG(5));
		break;
	case FLOATS:
		made = trampfd_dyn_new(floats, on_floats, (void *)answer);
		break;
	case PAIRS:
		made = trampfd_dyn_new(pairs, on_pairs, (void *)answer);
		break;
	}
	closure->a = (void *)made;
	return made ? 0 : -1;
}

int right(const struct closure *closure, long answer)
{
	void *code = closure->a;
	struct pair pair;

	switch ((answer / 64) % KINDS) {
	case REGISTER:
		return ((long (*)(long, long))code)(50, 8) == answer + 42;
	case ALL_REGISTERS:
		return ((long (*)(long, long, long, long, long))code)
			(1, 2, 3, 4, 5) == answer + 55;
	case FLOATS:
		return ((double (*)(double, double))code)(3, 2) == answer + 1.5;
	default:
		pair = ((struct pair (*)(struct pair, long))code)
			((struct pair){ 4, 0.5 }, 7);
		return pair.a == 3 && pair.b == answer - 6.5;
	}
}

void drop(struct closure *closure)
{
	trampfd_free((trampfd_function)closure->a);
}
