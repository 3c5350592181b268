// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * loader local|deepbind|unload MODULE OURS
 * loader none
 *
 * Has no libffi of its own. MODULE is module.c; OURS is what its ffi_closure_alloc must come from.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "check.h"

static void answer(ffi_cif *cif, void *ret, void **args, void *data)
{
	(void)cif;
	*(ffi_arg *)ret = *(int *)args[0] * *(int *)args[1] + *(int *)data;
}

/* Where the code lies: in a copy of OURS or in OURS, whose stub begins so. */
static void lies_in_a_stub(const void *code)
{
	static const unsigned char landing[] = { 0xf3, 0x0f, 0x1e, 0xfa };

	CHECK(!memcmp(code, landing, 4) &&
	      ((const unsigned char *)code)[5] == 0x8b);
}

/* Nothing of libffi is there: what is left to it is refused. */
static int none(void)
{
	ffi_status (*prep)(ffi_closure *, ffi_cif *,
			   void (*)(ffi_cif *, void *, void **, void *), void *,
			   void *) = dlsym(RTLD_DEFAULT, "ffi_prep_closure_loc");
	void *(*alloc)(size_t, void **) = dlsym(RTLD_DEFAULT,
						"ffi_closure_alloc");
	static ffi_type sint32 = { 4, 4, FFI_TYPE_SINT32, NULL };
	ffi_type *types[] = { &sint32, &sint32 };
	ffi_cif cif = { FFI_UNIX64, 2, types, &sint32, 0, 0 };
	ffi_closure own, *c;
	void *code;
	int k = 1;

	CHECK(prep && alloc && !dlsym(RTLD_DEFAULT, "ffi_call"));
	memset(&own, 0, sizeof(own));
	CHECK(prep(&own, &cif, answer, &k, &own) == FFI_BAD_ABI);
	c = alloc(sizeof(*c), &code);
	CHECK(c && prep(c, &cif, answer, &k, code) == FFI_OK);
	CHECK(CODE(add_fn, code)(6, 7) == 43);
	cif.abi = FFI_GNUW64;
	CHECK(prep(c, &cif, answer, &k, code) == FFI_BAD_ABI);
	CHECK(CODE(add_fn, code)(6, 7) == 43);
	return 0;
}

int main(int argc, char **argv)
{
	int flags = RTLD_NOW, k = 100, i;
	void *module, *code;
	void *(*make)(void (*)(ffi_cif *, void *, void **, void *), void *);
	void (*run)(void);

	if (argc == 2 && !strcmp(argv[1], "none"))
		return none();
	CHECK(argc == 4);
	if (!strcmp(argv[1], "deepbind"))
		flags |= RTLD_DEEPBIND;
	module = dlopen(argv[2], flags);
	if (!module)
		printf("%s\n", dlerror());
	CHECK(module);
	CHECK(!dlsym(RTLD_DEFAULT, "ffi_call"));
	make = dlsym(module, "module_make");
	run = dlsym(module, "module_run");
	CHECK(make && run);
	for (i = 0; i < 3; i++) {
		run();
		code = make(answer, &k);
		lies_in_a_stub(code);
		CHECK(CODE(add_fn, code)(6, 7) == 142);
	}
	if (!strcmp(argv[1], "unload")) {
		void *left;

		CHECK(!dlclose(module));
		left = dlopen(argv[2], RTLD_NOW | RTLD_NOLOAD);
		CHECK(!left);
		/* Its own cif went with it, and nobody looks at that. */
		CHECK(CODE(add_fn, code)(6, 7) == 142);
	}
	return 0;
}
