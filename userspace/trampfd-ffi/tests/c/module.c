// SPDX-License-Identifier: MIT OR Apache-2.0
/* What an interpreter's extension does, as a library that is loaded. */
#include "check.h"

typedef void (*handler)(ffi_cif *, void *, void **, void *);

/* Code of a closure for int(int, int). */
void *module_make(handler fun, void *data)
{
	void *code;
	ffi_closure *c = ffi_closure_alloc(sizeof(*c), &code);

	CHECK(c);
	CHECK(ffi_prep_closure_loc(c, add_cif(), fun, data, code) == FFI_OK);
	return code;
}

/* The conventions and memory that need libffi's own functions. */
void module_run(void)
{
	ffi_cif cif;
	int k = 1, sum;
	void *code = module_make(add, &k);
	ffi_closure *c;

	CHECK(CODE(add_fn, code)(1, 2) == 4);
	ffi_closure_free(code);

	CHECK(ffi_prep_cif(&cif, FFI_GNUW64, 2, &ffi_type_sint32, two_ints) ==
	      FFI_OK);
	c = ffi_closure_alloc(sizeof(*c), &code);
	CHECK(ffi_prep_closure_loc(c, &cif, add, &k, code) == FFI_OK);
	sum = CODE(int(__attribute__((ms_abi)) *)(int, int), code)(2, 3);
	CHECK(sum == 6);
	ffi_closure_free(c);

	c = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(c != MAP_FAILED);
	CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, c) == FFI_OK);
	CHECK(CODE(add_fn, c)(3, 4) == 8);
}
