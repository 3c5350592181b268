// SPDX-License-Identifier: MIT OR Apache-2.0
/* What some callers do that libffi does not ask for, and types that are none. */
#include "check.h"

/* Memory of the caller: libffi writes its code into it. */
static void own_memory(void)
{
	int k = 5;
	ffi_closure *c = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(c != MAP_FAILED);
	CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, c) == FFI_OK);
	CHECK(CODE(add_fn, c)(1, 2) == 8);
	/* Not at the start of a page, and again. */
	c = (void *)((char *)c + 1000);
	CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, c) == FFI_OK);
	CHECK(CODE(add_fn, c)(2, 2) == 9);
	CHECK(ffi_prep_closure_loc(c, add_cif(), multiply, &k, c) == FFI_OK);
	CHECK(CODE(add_fn, c)(2, 2) == 20);
}

static void own_memory_seen_twice(void)
{
	int k = 6, fd = memfd_create("closures", 0);
	ffi_closure *c, *code;

	CHECK(fd >= 0 && !ftruncate(fd, 4096));
	c = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	CHECK(c != MAP_FAILED && code != MAP_FAILED);
	CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, code) == FFI_OK);
	CHECK(CODE(add_fn, code)(1, 2) == 9);
}

static void sums_raw(ffi_cif *cif, void *ret, ffi_raw *raw, void *data)
{
	(void)cif;
	*(ffi_sarg *)ret = raw[0].sint + raw[1].sint + *(int *)data;
}

static void own_memory_raw(void)
{
	int k = 7, fd = memfd_create("closures", 0);
	ffi_raw_closure *c, *code;

	CHECK(fd >= 0 && !ftruncate(fd, 4096));
	c = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	CHECK(c != MAP_FAILED && code != MAP_FAILED);
	CHECK(ffi_prep_raw_closure_loc(c, add_cif(), sums_raw, &k, code) ==
	      FFI_OK);
	CHECK(CODE(add_fn, code)(1, 2) == 10);
}

/* GHC before 9.0.2 keeps a word of its own at the start, and goes on 8 bytes later with both. */
static void ghc(void)
{
	int k = 5, i;
	void *code;

	for (i = 0; i < 2; i++) {
		void **c = ffi_closure_alloc(sizeof(void *) +
					     sizeof(ffi_closure), &code);
		void *at = (char *)code + 8;

		CHECK(c);
		*c = c;
		CHECK(ffi_prep_closure_loc((ffi_closure *)(c + 1), add_cif(),
					   add, &k, at) == FFI_BAD_ABI);
		CHECK(ffi_prep_raw_closure_loc((ffi_raw_closure *)(c + 1),
					       add_cif(), sums_raw, &k, at) ==
		      FFI_BAD_ABI);
		ffi_closure_free(*c);
	}
	/* Others are as they were. */
	CHECK(CODE(add_fn, (add_closure(&k, &code), code))(1, 2) == 8);
}

/* Some free the code. */
static void code_is_freed(void)
{
	int k = 5, i;

	for (i = 0; i < few(100000); i++) {
		void *code;

		add_closure(&k, &code);
		CHECK(CODE(add_fn, code)(i, 2) == i + 7);
		ffi_closure_free(code);
	}
	for (i = 0; i < few(1000); i++) {
		void *code;
		ffi_closure *c = ffi_closure_alloc(100 + i, &code);

		CHECK(ffi_prep_closure_loc(c, add_cif(), add, &k, code) ==
		      FFI_OK);
		CHECK(CODE(add_fn, code)(i, 2) == i + 7);
		ffi_closure_free(code);
	}
}

struct wrapper {
	ffi_closure closure;
	void *writable_self;
};

/* gobject-introspection before 1.72 looks for the closure behind the code. */
static void closure_is_sought_behind_its_code(void)
{
	int k = 5, i;
	void *code;

	for (i = 0; i < few(1000); i++) {
		struct wrapper *w = ffi_closure_alloc(sizeof(*w), &code);

		CHECK(w);
		w->writable_self = w;
		CHECK(ffi_prep_closure_loc(&w->closure, add_cif(), add, &k,
					   code) == FFI_OK);
		CHECK(CODE(add_fn, code)(i, 2) == i + 7);
		ffi_closure_free(((struct wrapper *)code)->writable_self);
		/* It is lost, and works. */
		CHECK(CODE(add_fn, code)(i, 2) == i + 7);
	}
}

static void wrong_convention(void)
{
	static const int abis[] = { 0, 1, FFI_LAST_ABI, 77, -1 };
	int k = 5;
	void *code;
	size_t i;
	ffi_closure *c = add_closure(&k, &code);

	for (i = 0; i < sizeof(abis) / sizeof(abis[0]); i++) {
		ffi_cif cif = *add_cif();

		cif.abi = abis[i];
		CHECK(ffi_prep_closure_loc(c, &cif, multiply, NULL, code) ==
		      FFI_BAD_ABI);
	}
	/* What was there works on. */
	CHECK(CODE(add_fn, code)(1, 2) == 8);
}

/* A type that was right when the signature was prepared. */
static void bad_type(ffi_type *type, size_t size)
{
	ffi_type *good[] = { &ffi_type_sint32, NULL };
	ffi_type arg = { 0, 0, FFI_TYPE_STRUCT, good };
	ffi_type *args[] = { &arg };
	ffi_cif cif;
	int k = 5;
	void *code;
	ffi_closure *c = add_closure(&k, &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 1, &ffi_type_void, args) ==
	      FFI_OK);
	arg.elements = type->elements;
	arg.size = size;
	CHECK(ffi_prep_closure_loc(c, &cif, multiply, NULL, code) ==
	      FFI_BAD_TYPEDEF);
	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 0, &ffi_type_void, NULL) ==
	      FFI_OK);
	cif.rtype = &arg;
	CHECK(ffi_prep_closure_loc(c, &cif, multiply, NULL, code) ==
	      FFI_BAD_TYPEDEF);
	CHECK(CODE(add_fn, code)(1, 2) == 8);
	ffi_closure_free(c);
}

static void recursive_types(void)
{
	ffi_type self = { 8, 8, FFI_TYPE_STRUCT, NULL };
	ffi_type other = { 8, 8, FFI_TYPE_STRUCT, NULL };
	ffi_type *itself[] = { &self, NULL };
	ffi_type *twice[] = { &self, &self, NULL };
	ffi_type *each_other[2][2] = { { &other, NULL }, { &self, NULL } };
	ffi_type deep[200];
	ffi_type *members[200][2];
	int i;

	self.elements = itself;
	bad_type(&self, 8);
	self.elements = twice;
	bad_type(&self, 16);
	self.elements = each_other[0];
	other.elements = each_other[1];
	bad_type(&self, 8);
	for (i = 0; i < 200; i++) {
		members[i][0] = i ? &deep[i - 1] : &ffi_type_sint64;
		members[i][1] = NULL;
		deep[i] = (ffi_type){ 8, 8, FFI_TYPE_STRUCT, members[i] };
	}
	bad_type(&deep[199], 8);
}

/* Members that say of themselves that they are smaller than what is in them: 2 to the power of 60
 * ways through. */
static void endless_types(void)
{
	ffi_type deep[60];
	ffi_type *members[60][3];
	int i;

	for (i = 0; i < 60; i++) {
		members[i][0] = i ? &deep[i - 1] : &ffi_type_sint8;
		members[i][1] = members[i][0];
		members[i][2] = NULL;
		deep[i] = (ffi_type){ 1, 1, FFI_TYPE_STRUCT, members[i] };
	}
	bad_type(&deep[59], 16);
}

static void types_of_nothing(void)
{
	ffi_type *none[] = { NULL };
	ffi_type empty = { 0, 0, FFI_TYPE_STRUCT, none };
	ffi_type missing = { 0, 0, FFI_TYPE_STRUCT, NULL };
	ffi_type *args[] = { &empty };
	ffi_cif cif;

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 1, &ffi_type_void, args) ==
	      FFI_BAD_TYPEDEF);
	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 0, &empty, NULL) ==
	      FFI_BAD_TYPEDEF);
	bad_type(&empty, 0);
	bad_type(&missing, 8);
}

/* Only libffi knows this one: its own entry is asked. */
static void unknown_type(void)
{
	ffi_type strange = ffi_type_sint32;
	ffi_type *args[] = { &strange, &strange };
	ffi_cif cif;
	int k = 5;
	void *code;
	ffi_closure *c = add_closure(&k, &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 2, &ffi_type_sint32, args) ==
	      FFI_OK);
	strange.type = 99;
	CHECK(ffi_prep_closure_loc(c, &cif, add, &k, code) == FFI_OK);
	/* libffi looks at the type when it is called. */
	strange.type = FFI_TYPE_SINT32;
	CHECK(CODE(add_fn, code)(1, 2) == 8);
	ffi_closure_free(c);
}

static const struct test tests[] = {
	TEST(own_memory),
	TEST(own_memory_seen_twice),
	TEST(own_memory_raw),
	TEST(ghc),
	TEST(code_is_freed),
	TEST(closure_is_sought_behind_its_code),
	TEST(wrong_convention),
	TEST(recursive_types),
	TEST(endless_types),
	TEST(types_of_nothing),
	TEST(unknown_type),
};
MAIN(tests)
