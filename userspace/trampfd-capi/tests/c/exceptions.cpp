// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Exceptions: out of closures, and through frames with pointers to nested
 * functions, some with the clean-up that GCC makes under -fexceptions.
 */
#include <setjmp.h>
#include <stdexcept>
#include <trampfd.h>

#include "check.h"
#if defined(__x86_64__)
#include "arch/x86_64.h"
#endif

extern "C" {
void __gcc_nested_func_ptr_created(void *chain, void *func, void *dst);
void __gcc_nested_func_ptr_deleted(void);
long nested_add(long);
}

#define NOINLINE __attribute__((noinline))

struct frame {
	long x;
	long (*add)(long);
};

static inline __attribute__((always_inline)) void create(frame *frame)
{
	__gcc_nested_func_ptr_created(frame, reinterpret_cast<void *>(nested_add), &frame->add);
}

struct cleanup {
	~cleanup() { __gcc_nested_func_ptr_deleted(); }
};

/* Compiled with -fexceptions. */
NOINLINE static long cleans(long depth)
{
	frame frame = { depth, nullptr };
	create(&frame);
	cleanup at_end;

	if (!depth)
		throw std::runtime_error("cleans");
	return cleans(depth - 1) + frame.add(1);
}

/* Compiled without: the exception passes, and nobody says so. */
NOINLINE static long leaves(long depth)
{
	frame frame = { depth, nullptr };
	long sum;

	create(&frame);
	if (!depth)
		throw std::runtime_error("leaves");
	sum = depth % 3 ? leaves(depth - 1) : cleans(depth - 1);
	sum += frame.add(1);
	__gcc_nested_func_ptr_deleted();
	return sum;
}

NOINLINE static long catches(long depth)
{
	frame frame = { depth, nullptr };

	create(&frame);
	cleanup at_end;
	try {
		return depth % 2 ? leaves(depth) : cleans(depth);
	} catch (const std::runtime_error &) {
		CHECK(frame.add(1) == depth + 1);
	}
	return frame.add(2);
}

static void through_frames()
{
	frame frame = { 4, nullptr };
	long rss = 0, maps = 0, wx;

	create(&frame);
	for (long n = 0; n < 60000; n++) {
		if (n == 6000) {
			rss = status("VmRSS");
			maps = mappings(&wx);
		}
		CHECK(catches(n % 20) == n % 20 + 2);
		CHECK(frame.add(1) == 5);
	}
	__gcc_nested_func_ptr_deleted();
	CHECK(status("VmRSS") - rss < 256, "%ld KiB more", status("VmRSS") - rss);
	CHECK(mappings(&wx) <= maps + 2);
}

static int throws(int number, void *data)
{
	throw number + *static_cast<int *>(data);
}

static void handler_throws(const trampfd_signature *, void *, void *const *args, void *data)
{
	throw *static_cast<int *>(args[0]) + *static_cast<int *>(data);
}

static void out_of_closures()
{
	trampfd_type ints[10];
	int data = 2;

	for (auto &type : ints)
		type = TRAMPFD_INT;
	trampfd_signature *one = trampfd_signature_new(ints, 1, TRAMPFD_INT);
	trampfd_signature *ten = trampfd_signature_new(ints, 10, TRAMPFD_DOUBLE);
	trampfd_function f[] = {
		trampfd_new(reinterpret_cast<trampfd_function>(throws), &data, TRAMPFD_ARG(1)),
		trampfd_dyn_new(one, handler_throws, &data),
		trampfd_dyn_new(ten, handler_throws, &data),
	};

	for (int n = 0; n < 3; n++) {
		int caught = 0;

		CHECK(f[n], "%s", trampfd_detail());
		try {
			if (n < 2)
				reinterpret_cast<int (*)(int)>(f[n])(40);
			else
				reinterpret_cast<double (*)(int, int, int, int, int, int, int, int,
							    int, int)>(f[n])(
					40, 2, 3, 4, 5, 6, 7, 8, 9, 10);
		} catch (int number) {
			caught = number;
		}
		CHECK(caught == 42, "closure %d", n);
		CHECK(trampfd_free(f[n]) == TRAMPFD_OK);
	}
	trampfd_signature_free(one);
	trampfd_signature_free(ten);
}

int main(int argc, char **argv)
{
	static const test tests[] = {
		TEST(through_frames),
		TEST(out_of_closures),
		{ nullptr, nullptr },
	};

	return run_tests(tests, argc > 1 ? argv[1] : nullptr);
}
