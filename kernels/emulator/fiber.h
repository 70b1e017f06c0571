// Fibers: stacks that the machine's threads run on, and the switch between them (about 5 ns).
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace switchback::emulator {

struct Fiber {
  void* stack_pointer = nullptr;  // saved while it does not run
  char* stack = nullptr;          // lowest address, above a guard page; null: the host's own stack
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// Fibers that are all made to run `entry`, which never returns; kept for the next launches.
class FiberPool {
 public:
  explicit FiberPool(void (*entry)()) : entry_(entry) {}
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;
  ~FiberPool();
  Fiber* take();                                 // one that waits at its beginning or where it was put
  void put(Fiber* fiber) { idle_.push_back(fiber); }
  void reset();                                  // abandons what any fiber was doing

 private:
  void start_over(Fiber& fiber, size_t index) const;
  void (*entry_)();
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> idle_;
};

// Leaves `from` and goes on in `to`.
void switch_fiber(Fiber& from, Fiber& to);
// What a fiber calls first; `host` is who started it.
void entered_fiber(Fiber& host);

}  // namespace switchback::emulator
