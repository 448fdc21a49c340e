#include "pinned_memory.h"

#include "driver.h"

namespace pipellm {

namespace {

void free_pinned_memory(void* pointer) { status_of<&PipellmDriver::host_free>(pointer); }

class PinnedMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t nbytes) override {
    void* pointer = nullptr;
    if (nbytes != 0) call<&PipellmDriver::host_alloc>(nbytes, &pointer);
    return {pointer, pointer, &free_pinned_memory, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned_memory; }
  void copy_data(void* destination, const void* source, std::size_t nbytes) const override {
    default_copy_data(destination, source, nbytes);
  }
};

}  // namespace

c10::Allocator* pinned_allocator() {
  static auto* const memory = new PinnedMemory();  // leaked: see device_memory.cpp
  return memory;
}

}  // namespace pipellm
