// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A lambda with captures as the comparator of qsort, of any C signature.
 *
 *	c++ -std=c++17 sort.cpp $(pkg-config --cflags --libs trampfd)
 */
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <trampfd.h>

/* How many of the arguments are passed in integer registers. */
template <class... Args>
constexpr int integers = (0 + ... + (std::is_floating_point_v<Args> ? 0 : 1));

template <class Signature, class F> class Closure;

/* Arguments are integers, pointers and floating-point numbers. */
template <class R, class... Args, class F>
class Closure<R(Args...), F> {
public:
	explicit Closure(F f) : f(std::move(f))
	{
		auto code = reinterpret_cast<trampfd_function>(&Closure::call);

		pointer = trampfd_new(code, this, TRAMPFD_ARG(integers<Args...>));
		if (!pointer)
			throw std::runtime_error(trampfd_detail());
	}
	~Closure() { trampfd_free(pointer); }
	Closure(const Closure &) = delete;

	R (*get() const)(Args...) { return reinterpret_cast<R (*)(Args...)>(pointer); }

private:
	static R call(Args... args, Closure *self) { return self->f(args...); }

	F f;
	trampfd_function pointer;
};

template <class Signature, class F>
Closure<Signature, F> closure(F f)
{
	return Closure<Signature, F>(std::move(f));
}

int main()
{
	int numbers[] = { 1, 9, 5, 12, 7 }, origin = 8, calls = 0;
	auto distance = [&](const void *n) { return std::abs(*static_cast<const int *>(n) - origin); };
	auto sort = closure<int(const void *, const void *)>([&](const void *a, const void *b) {
		calls++;
		return distance(a) - distance(b);
	});
	auto fail = closure<double(double)>([&](double) -> double {
		throw std::out_of_range("from inside the closure");
	});

	std::qsort(numbers, 5, sizeof(int), sort.get());
	for (int n : numbers)
		std::printf("number %d %g\n", n, n / 2.0);
	try {
		fail.get()(1.0);
	} catch (const std::out_of_range &error) {
		std::printf("%s, %s\n", error.what(), calls ? "called" : "not called");
	}
	return 0;
}
