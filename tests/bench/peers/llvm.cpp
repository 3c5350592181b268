// LLVM's SectionMemoryManager with the sections of 100 modules: 1000 bytes of code, 300 of
// read-only and 200 of read-write data each. Prints three lines, one for each way: system calls
// until all is executable, mappings, bytes mapped.
//
//   all modules, then one finalizeMemory
//   finalizeMemory after each module, one manager for all
//   a manager for each module, so that each can be freed alone

#include <llvm/ExecutionEngine/SectionMemoryManager.h>
#include <llvm/Support/Memory.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

using llvm::SectionMemoryManager;
using llvm::sys::Memory;
using llvm::sys::MemoryBlock;

// What LLVM's own mapper does, counted: each is one system call.
struct Counting : SectionMemoryManager::MemoryMapper {
	size_t calls = 0, bytes = 0;

	MemoryBlock allocateMappedMemory(SectionMemoryManager::AllocationPurpose, size_t len,
					 const MemoryBlock *near, unsigned flags,
					 std::error_code &error) override {
		calls++;
		MemoryBlock block = Memory::allocateMappedMemory(len, near, flags, error);
		bytes += block.allocatedSize();
		return block;
	}

	std::error_code protectMappedMemory(const MemoryBlock &block, unsigned flags) override {
		calls++;
		return Memory::protectMappedMemory(block, flags);
	}

	std::error_code releaseMappedMemory(MemoryBlock &block) override {
		return Memory::releaseMappedMemory(block);
	}
};

constexpr int MODULES = 100;

// Rows of /proc/self/maps.
static long mappings() {
	std::ifstream maps("/proc/self/maps");
	long rows = 0;
	for (std::string line; std::getline(maps, line);)
		rows++;
	return rows;
}

static void module(SectionMemoryManager &manager, unsigned id) {
	memset(manager.allocateCodeSection(1000, 16, id, ".text"), 0xc3, 1000);
	memset(manager.allocateDataSection(300, 16, id, ".rodata", true), 1, 300);
	memset(manager.allocateDataSection(200, 16, id, ".data", false), 1, 200);
}

static void finalise(SectionMemoryManager &manager) {
	std::string error;
	if (manager.finalizeMemory(&error)) {
		fprintf(stderr, "llvm: %s\n", error.c_str());
		exit(1);
	}
}

int main() {
	for (int way = 0; way < 3; way++) {
		Counting mapper;
		std::vector<std::unique_ptr<SectionMemoryManager>> managers;
		managers.reserve(MODULES);
		long before = mappings();
		for (int n = 0; n < MODULES; n++) {
			if (n == 0 || way == 2)
				managers.push_back(std::make_unique<SectionMemoryManager>(&mapper));
			module(*managers.back(), n);
			if (way != 0)
				finalise(*managers.back());
		}
		if (way == 0)
			finalise(*managers.back());
		printf("%zu %ld %zu\n", mapper.calls, mappings() - before, mapper.bytes);
		managers.clear();
	}
}
