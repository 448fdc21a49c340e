// Device memory: everything comes from the driver, which counts it against the device's size.
//
// Operators run as CPU kernels, and those allocate their results and workspaces from PyTorch's CPU
// allocator. Inside a `KernelMemory` scope that allocator hands out device memory instead, so that
// results are born where they belong, are counted, and need no copy.
#pragma once

#include <c10/core/Allocator.h>

namespace pipellm {

// Registers the CUDA allocator and the scoped CPU allocator with PyTorch.
void register_device_memory();

c10::Allocator* device_allocator();

// Whether `data` was allocated by the driver's malloc (under either device tag).
bool is_device_memory(const c10::DataPtr& data);

class KernelMemory {
 public:
  explicit KernelMemory(c10::DeviceIndex device);
  ~KernelMemory();
  KernelMemory(const KernelMemory&) = delete;
  KernelMemory& operator=(const KernelMemory&) = delete;

 private:
  c10::DeviceIndex previous_;
};

}  // namespace pipellm
