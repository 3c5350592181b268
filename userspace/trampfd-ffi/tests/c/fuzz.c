// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Random signatures: libffi's ffi_call calls our closure, which must see every byte of the
 * arguments, and whose result must arrive. Both sides of libffi agree on where a value is passed,
 * so whatever differs is ours.
 */
#include "check.h"

enum { MAX_ARGS = 24, MAX_MEMBERS = 4, MAX_TYPES = 64, ROUNDS = 20000 };

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static ffi_type *scalars[] = {
	&ffi_type_sint8,	 &ffi_type_uint8,	   &ffi_type_sint16,
	&ffi_type_uint16,	 &ffi_type_sint32,	   &ffi_type_uint32,
	&ffi_type_sint64,	 &ffi_type_uint64,	   &ffi_type_pointer,
	&ffi_type_float,	 &ffi_type_double,	   &ffi_type_float,
	&ffi_type_double,	 &ffi_type_longdouble,	   &ffi_type_complex_float,
	&ffi_type_complex_double, &ffi_type_complex_longdouble,
#ifdef WITH_INT128
	&ffi_type_sint128,	 &ffi_type_uint128,
#endif
};
enum { SCALARS = sizeof(scalars) / sizeof(scalars[0]) };

static ffi_type types[MAX_TYPES];
static ffi_type *members[MAX_TYPES][MAX_MEMBERS + 1];
static int type_count;

/* GNUW64 has no 128-bit values in libffi's tests: only what both conventions know. */
static int foreign;

static ffi_type *scalar(void)
{
	return scalars[rnd() % (foreign ? 13 : SCALARS)];
}

static ffi_type *random_type(int depth)
{
	ffi_type *type;
	int i, count, n = type_count;

	if (depth > 2 || rnd() % 3 || n == MAX_TYPES)
		return scalar();
	type_count++;
	type = &types[n];
	count = 1 + rnd() % MAX_MEMBERS;
	for (i = 0; i < count; i++)
		members[n][i] = random_type(depth + 1);
	members[n][count] = NULL;
	*type = (ffi_type){ 0, 0, FFI_TYPE_STRUCT, members[n] };
	return type;
}

/*
 * Without gaps, which libffi cannot describe: ctypes tells it the size and lets it be wrong. No
 * float: of one that should have a gap behind it, ffi_call passes 4 bytes only.
 */
static ffi_type *packed_type(void)
{
	int n = type_count++, count = 1 + rnd() % MAX_MEMBERS, i;
	ffi_type *type = &types[n];

	*type = (ffi_type){ 0, 1, FFI_TYPE_STRUCT, members[n] };
	for (i = 0; i < count; i++) {
		members[n][i] = rnd() % 4 ? scalars[rnd() % 9] :
					    &ffi_type_double;
		type->size += members[n][i]->size;
	}
	members[n][count] = NULL;
	return type;
}

static int is_packed(ffi_type *type)
{
	return type->type == FFI_TYPE_STRUCT && type->elements[0]->size &&
	       type->alignment == 1 && type->size > 1;
}

static ffi_type *any_type(void)
{
	return !foreign && type_count < MAX_TYPES && rnd() % 6 == 0 ?
		       packed_type() :
		       random_type(0);
}

/* Bytes of a value that mean something: none in between, 10 of a long double. */
static void mask(ffi_type *type, unsigned char *at)
{
	ffi_type **member;
	size_t offset = 0;

	if (is_packed(type)) {
		memset(at, 0xff, type->size);
		return;
	}
	switch (type->type) {
	case FFI_TYPE_STRUCT:
		for (member = type->elements; *member; member++) {
			size_t align = (*member)->alignment;

			offset = (offset + align - 1) / align * align;
			mask(*member, at + offset);
			offset += (*member)->size;
		}
		break;
	case FFI_TYPE_COMPLEX:
		mask(type->elements[0], at);
		mask(type->elements[0], at + type->size / 2);
		break;
	case FFI_TYPE_LONGDOUBLE:
		memset(at, 0xff, 10);
		break;
	default:
		memset(at, 0xff, type->size);
	}
}

/* Numbers that every load and store keeps as they are: no signalling NaN. */
static void fill(ffi_type *type, unsigned char *at)
{
	ffi_type **member;
	size_t offset = 0, i;

	switch (is_packed(type) ? FFI_TYPE_SINT8 : type->type) {
	case FFI_TYPE_STRUCT:
		for (member = type->elements; *member; member++) {
			size_t align = (*member)->alignment;

			offset = (offset + align - 1) / align * align;
			fill(*member, at + offset);
			offset += (*member)->size;
		}
		break;
	case FFI_TYPE_COMPLEX:
		fill(type->elements[0], at);
		fill(type->elements[0], at + type->size / 2);
		break;
	case FFI_TYPE_FLOAT:
		*(float *)at = (float)(int64_t)rnd() / 3;
		break;
	case FFI_TYPE_DOUBLE:
		*(double *)at = (double)(int64_t)rnd() / 3;
		break;
	case FFI_TYPE_LONGDOUBLE:
		*(long double *)at = (long double)(int64_t)rnd() / 3;
		break;
	default:
		for (i = 0; i < type->size; i++)
			at[i] = (unsigned char)rnd();
	}
}

static int same(ffi_type *type, const unsigned char *a, const unsigned char *b)
{
	static unsigned char bits[4096];
	size_t i;

	memset(bits, 0, type->size);
	mask(type, bits);
	for (i = 0; i < type->size; i++)
		if ((a[i] ^ b[i]) & bits[i])
			return 0;
	return 1;
}

union value {
	unsigned char bytes[4096];
	long double aligned;
};

static union value args[MAX_ARGS], result, got;
static int calls, wrong;

static void handler(ffi_cif *cif, void *ret, void **seen, void *data)
{
	unsigned int i;

	calls++;
	wrong = data != &calls ? 1000 : -1;
	for (i = 0; i < cif->nargs; i++)
		if (!same(cif->arg_types[i], seen[i], args[i].bytes))
			wrong = (int)i;
	if (cif->rtype->type != FFI_TYPE_VOID)
		memcpy(ret, result.bytes, cif->rtype->size);
}

static void show(ffi_type *type)
{
	ffi_type **member;

	if (type->type != FFI_TYPE_STRUCT) {
		printf(" %d/%zu", type->type, type->size);
		return;
	}
	printf(" {");
	for (member = type->elements; *member; member++)
		show(*member);
	printf(" }");
}

/* A structure of one long double is returned in st(0). libffi's calls look in rax and rdx. */
static int libffi_looks_elsewhere(ffi_type *type)
{
	if (type->type != FFI_TYPE_STRUCT || type->size != 16)
		return 0;
	return type->elements[0]->type == FFI_TYPE_LONGDOUBLE ||
	       libffi_looks_elsewhere(type->elements[0]);
}

static void one(ffi_closure *closure, void *code)
{
	ffi_type *arg_types[MAX_ARGS];
	void *values[MAX_ARGS];
	ffi_cif cif;
	ffi_type *ret;
	int count = rnd() % (rnd() % 4 ? 8 : MAX_ARGS + 1), i;
	ffi_abi abi = FFI_UNIX64;

	foreign = rnd() % 8 == 0;
	if (foreign)
		abi = FFI_GNUW64;
	type_count = 0;
	for (i = 0; i < count; i++) {
		arg_types[i] = any_type();
		values[i] = args[i].bytes;
	}
	ret = rnd() % 8 ? any_type() : &ffi_type_void;
	CHECK(ffi_prep_cif(&cif, abi, count, ret, arg_types) == FFI_OK);
	if (libffi_looks_elsewhere(ret))
		return;
	for (i = 0; i < count; i++)
		fill(arg_types[i], args[i].bytes);
	if (ret != &ffi_type_void) {
		memset(&result, 0, sizeof(result));
		fill(ret, result.bytes);
	}
	CHECK(ffi_prep_closure_loc(closure, &cif, handler, &calls, code) ==
	      FFI_OK);
	calls = 0;
	memset(&got, 0xa5, sizeof(got));
	ffi_call(&cif, CODE(void (*)(void), code), got.bytes, values);
	if (calls != 1 || wrong >= 0 ||
	    (ret != &ffi_type_void && !same(ret, got.bytes, result.bytes))) {
		printf("# abi %d, argument %d of", abi, wrong);
		for (i = 0; i < count; i++)
			show(arg_types[i]);
		printf(" ->");
		show(ret);
		printf("\n");
		CHECK(!"the same");
	}
}

static void signatures(void)
{
	const char *given = getenv("FUZZ_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : 0x1234567;
	void *code;
	ffi_closure *closure;
	int round;

	printf("# FUZZ_SEED=%#llx\n", (unsigned long long)seed);
	state = seed | 1;
	for (round = 0; round < few(ROUNDS); round++) {
		closure = ffi_closure_alloc(sizeof(*closure), &code);
		CHECK(closure);
		one(closure, code);
		ffi_closure_free(closure);
	}
}

struct one_long_double {
	long double value;
};

static void make_long_double(ffi_cif *cif, void *ret, void **seen, void *data)
{
	(void)cif;
	(void)data;
	*(long double *)ret = *(long double *)seen[0] * 2;
}

static void structure_of_a_long_double(void)
{
	ffi_type *elements[] = { &ffi_type_longdouble, NULL };
	ffi_type type = { 0, 0, FFI_TYPE_STRUCT, elements };
	ffi_type *arg_types[] = { &type };
	struct one_long_double value = { 1.25L };
	ffi_cif cif;
	void *code;
	ffi_closure *closure = ffi_closure_alloc(sizeof(*closure), &code);

	CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 1, &type, arg_types) ==
	      FFI_OK);
	CHECK(ffi_prep_closure_loc(closure, &cif, make_long_double, NULL,
				   code) == FFI_OK);
	value = CODE(struct one_long_double(*)(struct one_long_double),
		     code)(value);
	CHECK(value.value == 2.5L);
}

/* Many arguments, more than one page of stack. */
static void long_lists(void)
{
	enum { COUNT = 3000 };
	static ffi_type *arg_types[COUNT];
	static void *values[COUNT];
	static double numbers[COUNT];
	static const int counts[] = { 9, 16, 17, 100, 1000, COUNT };
	ffi_closure *closure;
	void *code;
	size_t n;
	int i;

	for (n = 0; n < sizeof(counts) / sizeof(counts[0]); n++) {
		ffi_cif cif;
		extern void sum_doubles(ffi_cif *, void *, void **, void *);
		double got = 0, want = 0;

		closure = ffi_closure_alloc(sizeof(*closure), &code);
		for (i = 0; i < counts[n]; i++) {
			arg_types[i] = &ffi_type_double;
			numbers[i] = i * 0.5 + 1;
			values[i] = &numbers[i];
			want += numbers[i] * i;
		}
		CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, counts[n],
				   &ffi_type_double, arg_types) == FFI_OK);
		CHECK(ffi_prep_closure_loc(closure, &cif, sum_doubles, NULL,
					   code) == FFI_OK);
		ffi_call(&cif, CODE(void (*)(void), code), &got, values);
		CHECK(got == want);
		ffi_closure_free(closure);
	}
}

void sum_doubles(ffi_cif *cif, void *ret, void **seen, void *data)
{
	double sum = 0;
	unsigned int i;

	(void)data;
	for (i = 0; i < cif->nargs; i++)
		sum += *(double *)seen[i] * i;
	*(double *)ret = sum;
}

static const struct test tests[] = {
	TEST(signatures),
	TEST(structure_of_a_long_double),
	TEST(long_lists),
};
MAIN(tests)
