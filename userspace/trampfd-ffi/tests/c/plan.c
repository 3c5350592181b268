// SPDX-License-Identifier: MIT OR Apache-2.0
/* Call plans, which libffi has since 3.7.0: not in the header that these tests are built with. */
#include "check.h"

typedef struct ffi_call_plan ffi_call_plan;
ffi_call_plan *ffi_call_plan_alloc(ffi_cif *cif);
void ffi_call_plan_invoke(ffi_call_plan *plan, void (*fn)(void), void *rvalue,
			  void **avalue);
void ffi_call_plan_free(ffi_call_plan *plan);
size_t ffi_call_plan_size(ffi_call_plan *plan);

static int subtract(int a, int b)
{
	return a - b;
}

static void plans(void)
{
	int a = 3, b = 5;
	void *args[] = { &a, &b };
	ffi_call_plan *plan = ffi_call_plan_alloc(add_cif());
	ffi_sarg result = 1;

	CHECK(plan && ffi_call_plan_size(plan) > 0);
	ffi_call_plan_invoke(plan, CODE(void (*)(void), subtract), &result,
			     args);
	CHECK(result == -2);
	b = -5;
	ffi_call_plan_invoke(plan, CODE(void (*)(void), subtract), &result,
			     args);
	CHECK(result == 8);
	ffi_call_plan_free(plan);
	ffi_call_plan_free(NULL);
	CHECK(!ffi_call_plan_size(NULL));
}

static void through_a_closure(void)
{
	int a = 3, b = 5, k = 4;
	void *args[] = { &a, &b }, *code;
	ffi_call_plan *plan = ffi_call_plan_alloc(add_cif());
	ffi_sarg result = 0;

	add_closure(&k, &code);
	ffi_call_plan_invoke(plan, CODE(void (*)(void), code), &result, args);
	CHECK(result == 12);
	ffi_call_plan_free(plan);
}

static void version_is_the_one_that_is_linked_in(void)
{
	CHECK(!strcmp(ffi_get_version(), FFI_VERSION_STRING));
	CHECK(ffi_get_version_number() == FFI_VERSION_NUMBER);
	CHECK(ffi_get_closure_size() == sizeof(ffi_closure));
	CHECK(ffi_get_default_abi() == FFI_DEFAULT_ABI);
}

static const struct test tests[] = {
	TEST(plans),
	TEST(through_a_closure),
	TEST(version_is_the_one_that_is_linked_in),
};
MAIN(tests)
