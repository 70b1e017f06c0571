#include "kernels/emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "kernels/check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "the emulated GPU switches fibers in x86-64 assembly"
#endif

// void switchback_switch_stack(void** save, void* to): the System V ABI leaves these six registers to the callee.
asm(R"(
  .text
  .type switchback_switch_stack, @function
switchback_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size switchback_switch_stack, .-switchback_switch_stack
)");
extern "C" void switchback_switch_stack(void** save, void* to);

namespace switchback::emulator {
namespace {

constexpr size_t kPage = 4096;
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStack = 256 << 10;  // instrumented frames are larger
#else
constexpr size_t kStack = 64 << 10;
#endif

}  // namespace

FiberPool::~FiberPool() {
  for (const auto& fiber : all_) munmap(fiber->stack - kPage, kStack + kPage);
}

Fiber* FiberPool::take() {
  if (idle_.empty()) {
    void* memory =
        mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw OutOfMemory("out of memory: a stack for the emulated GPU");
    mprotect(memory, kPage, PROT_NONE);
    all_.push_back(std::make_unique<Fiber>());
    all_.back()->stack = static_cast<char*>(memory) + kPage;
    all_.back()->stack_bytes = kStack;
    start_over(*all_.back(), all_.size() - 1);
    idle_.push_back(all_.back().get());
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

void FiberPool::reset() {
  idle_.clear();
  for (size_t i = 0; i < all_.size(); ++i) {
    start_over(*all_[i], i);
    idle_.push_back(all_[i].get());
  }
}

void FiberPool::start_over(Fiber& fiber, size_t index) const {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);
#endif
  // Tops lie at different places of a page, so that the busy part of many stacks spreads over the cache's sets.
  auto* top = reinterpret_cast<void**>(fiber.stack + fiber.stack_bytes - index % 31 * 128);
  *--top = nullptr;  // no return address; keeps the ABI's alignment
  *--top = reinterpret_cast<void*>(entry_);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  fiber.stack_pointer = top;
  fiber.fake_stack = nullptr;
}

void switch_fiber(Fiber& from, Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
  switchback_switch_stack(&from.stack_pointer, to.stack_pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void entered_fiber([[maybe_unused]] Fiber& host) {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  // The first fiber of all comes from the host; later ones may come from other fibers.
  if (!host.stack) {
    host.stack = static_cast<char*>(const_cast<void*>(bottom));
    host.stack_bytes = bytes;
  }
#endif
}

}  // namespace switchback::emulator
