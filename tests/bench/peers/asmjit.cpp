// AsmJit's allocator with two mappings, as trampfd-bench asks for it. Each line of the input is a
// task, each line of the output its answer:
//
//   pairs THREADS SIZE DEPTH COUNT   nanoseconds to allocate, write and release a block of SIZE
//                                    bytes, DEPTH blocks at a time, COUNT blocks in each thread;
//                                    the mean of the threads, which share one allocator
//   replace COUNT                    nanoseconds to release a block and to allocate another, as
//                                    tests/bench/src/code_alloc.rs chooses them
//   memory                           bytes used, bytes reserved, bytes of side data after that
//
// The same tasks are done by tests/bench/src/code_alloc.rs on ours, and the numbers drawn are the
// same.

#include <asmjit/core.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

using asmjit::JitAllocator;
using asmjit::JitAllocatorOptions;

static JitAllocator::CreateParams params() {
	JitAllocator::CreateParams params{};
	params.options = JitAllocatorOptions::kUseDualMapping;
	return params;
}

static void check(asmjit::Error error) {
	if (error == asmjit::kErrorOk)
		return;
	fprintf(stderr, "asmjit: %s\n", asmjit::DebugUtils::errorAsString(error));
	exit(1);
}

struct Block {
	void *rx;
	void *rw;
};

static uint8_t code[1 << 16];

static double now() {
	using namespace std::chrono;
	return duration<double, std::nano>(steady_clock::now().time_since_epoch()).count();
}

static void pairs(JitAllocator &allocator, size_t size, size_t depth, size_t count) {
	Block blocks[64];
	for (size_t n = 0; n < count; n += depth) {
		for (size_t i = 0; i < depth; i++) {
			check(allocator.alloc(&blocks[i].rx, &blocks[i].rw, size));
			memcpy(blocks[i].rw, code, size);
		}
		for (size_t i = depth; i-- > 0;)
			check(allocator.release(blocks[i].rx));
	}
}

// Keeps this thread on the nth processor that it may use, where there are so many.
static void pin(size_t n) {
	cpu_set_t may, one;
	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof may, &may))
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &may) && n-- == 0) {
			CPU_SET(cpu, &one);
			sched_setaffinity(0, sizeof one, &one);
			return;
		}
	}
}

static double timed_pairs(JitAllocator &allocator, size_t threads, size_t size, size_t depth,
			  size_t count) {
	auto timed = [&] {
		double start = now();
		pairs(allocator, size, depth, count);
		return (now() - start) / count;
	};
	if (threads == 1) {
		pairs(allocator, size, depth, depth * 4);
		return timed();
	}
	std::atomic<size_t> waiting(threads);
	std::vector<double> took(threads);
	std::vector<std::thread> all;
	for (size_t thread = 0; thread < threads; thread++) {
		all.emplace_back([&, thread] {
			pin(thread);
			pairs(allocator, size, depth, depth * 4);
			waiting--;
			while (waiting)
				sched_yield();
			took[thread] = timed();
		});
	}
	double sum = 0;
	for (size_t thread = 0; thread < threads; thread++) {
		all[thread].join();
		sum += took[thread];
	}
	return sum / threads;
}

constexpr size_t LIVE = 10000;

// What is replaced next, and by how many bytes.
struct Draw {
	uint64_t x = 1;
	size_t index, size;
	void next() {
		x = x * 6364136223846793005u + 1442695040888963407u;
		index = (x >> 40) % LIVE;
		size = 8 + (x >> 20 & 1023);
	}
};

struct Replaced {
	JitAllocator::CreateParams how = params();
	JitAllocator allocator{&how};
	std::vector<Block> live{LIVE};
	Draw draw;

	Replaced() {
		for (Block &block : live) {
			draw.next();
			check(allocator.alloc(&block.rx, &block.rw, draw.size));
		}
	}

	void replace(size_t count) {
		for (size_t n = 0; n < count; n++) {
			draw.next();
			Block &block = live[draw.index];
			check(allocator.release(block.rx));
			check(allocator.alloc(&block.rx, &block.rw, draw.size));
		}
	}
};

int main() {
	memset(code, 0x90, sizeof code);
	JitAllocator::CreateParams how = params();
	JitAllocator allocator(&how);
	Replaced replaced;
	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		size_t threads, size, depth, count;
		if (sscanf(line, "pairs %zu %zu %zu %zu", &threads, &size, &depth, &count) == 4 &&
		    threads && size <= sizeof code && depth && depth <= 64) {
			printf("%f\n", timed_pairs(allocator, threads, size, depth, count));
		} else if (sscanf(line, "replace %zu", &count) == 1) {
			double start = now();
			replaced.replace(count);
			printf("%f\n", (now() - start) / count);
		} else if (strcmp(line, "memory\n") == 0) {
			JitAllocator::Statistics now = replaced.allocator.statistics();
			printf("%zu %zu %zu\n", now.usedSize(), now.reservedSize(), now.overheadSize());
		} else {
			fprintf(stderr, "asmjit: unknown task: %s", line);
			return 1;
		}
		fflush(stdout);
	}
}
