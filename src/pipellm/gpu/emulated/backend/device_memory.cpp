#include "device_memory.h"

#include "current.h"
#include "driver.h"
#include "memory_statistics.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <string>

namespace pipellm {

namespace {

using c10::DataPtr;
using c10::Device;
using c10::DeviceIndex;

constexpr DeviceIndex kNoKernel = -1;
thread_local DeviceIndex kernel_device = kNoKernel;

PipellmMemoryInfo memory_info(DeviceIndex device) {
  PipellmMemoryInfo info{};
  call<&PipellmDriver::memory_info>(device, &info);
  return info;
}

// 12.50 MiB, 3.00 GiB: as c10::cuda writes sizes.
std::string readable(uint64_t nbytes) {
  const double bytes = static_cast<double>(nbytes);
  char text[32];
  if (nbytes <= 1024) {
    std::snprintf(text, sizeof text, "%.0f bytes", bytes);
  } else if (nbytes <= 1048576) {
    std::snprintf(text, sizeof text, "%.2f KiB", bytes / 1024);
  } else if (nbytes <= 1073741824ULL) {
    std::snprintf(text, sizeof text, "%.2f MiB", bytes / 1048576);
  } else {
    std::snprintf(text, sizeof text, "%.2f GiB", bytes / 1073741824);
  }
  return text;
}

[[noreturn]] void raise_out_of_memory(DeviceIndex device, size_t nbytes) {
  count_out_of_memory(device);
  const PipellmMemoryInfo info = memory_info(device);
  const std::string used = readable(info.allocated);
  const std::string allowed =
      memory_fraction(device) < 1 ? readable(memory_limit(device)) + " allowed; " : "";
  throw c10::OutOfMemoryError(
      {__func__, __FILE__, static_cast<uint32_t>(__LINE__)},
      "CUDA out of memory. Tried to allocate " + readable(nbytes) + ". GPU " +
          std::to_string(static_cast<int>(device)) + " has a total capacity of " +
          readable(info.total) + " of which " + readable(info.total - info.allocated) +
          " is free. Process has " + used + " memory in use. " + allowed +
          "Of the allocated memory " + used +
          " is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated.");
}

void free_device_memory(void* pointer) {
  freed(pointer);
  // Deleters may not throw; after a lost context or a fork there is nothing left to free anyway.
  status_of<&PipellmDriver::free>(pointer);
}

DataPtr allocate_device_memory(DeviceIndex device, size_t nbytes, Device tag) {
  void* pointer = nullptr;
  if (nbytes != 0) {
    if (!claim_memory(device, nbytes)) raise_out_of_memory(device, nbytes);
    const int status = status_of<&PipellmDriver::malloc>(device, nbytes, &pointer);
    if (status != PIPELLM_OK) not_allocated(device, nbytes);
    if (status == PIPELLM_OUT_OF_MEMORY) raise_out_of_memory(device, nbytes);
    check(status);
    allocated(device, nbytes, pointer);
  }
  return {pointer, pointer, &free_device_memory, tag};
}

// Not a caching allocator: what PyTorch reports as reserved is what is allocated.
class DeviceMemory final : public c10::DeviceAllocator {
 public:
  DataPtr allocate(size_t nbytes) override {
    const DeviceIndex device = current_device();
    return allocate_device_memory(device, nbytes, Device(c10::kCUDA, device));
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_device_memory; }
  void copy_data(void* destination, const void* source, std::size_t nbytes) const override {
    default_copy_data(destination, source, nbytes);
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  // Kernels have run when their launch returns, and copies keep their buffers alive themselves, so
  // memory may be reused as soon as nothing refers to it.
  void recordStream(const DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex device) override {
    return memory_statistics(device);
  }
  void resetAccumulatedStats(DeviceIndex device) override { reset_accumulated_statistics(device); }
  void resetPeakStats(DeviceIndex device) override { reset_peak_statistics(device); }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex device) override {
    const PipellmMemoryInfo info = memory_info(device);
    return {info.total - info.allocated, info.total};
  }
};

// The process's CPU allocator: the one that was there, except inside a KernelMemory scope.
class ScopedHostMemory final : public c10::Allocator {
 public:
  explicit ScopedHostMemory(c10::Allocator* host) : host_(host) { host_of_raw_ = host; }

  DataPtr allocate(size_t nbytes) override {
    if (kernel_device == kNoKernel) return host_->allocate(nbytes);
    return allocate_device_memory(kernel_device, nbytes, Device(c10::kCPU));
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_either; }
  bool is_simple_data_ptr(const DataPtr& data) const override {
    return is_device_memory(data) || host_->is_simple_data_ptr(data);
  }
  void copy_data(void* destination, const void* source, std::size_t nbytes) const override {
    default_copy_data(destination, source, nbytes);
  }

 private:
  // raw_allocate gives no way to remember which memory a pointer is.
  static void free_either(void* pointer) {
    if (driver().device_of(driver().self, pointer) >= 0) {
      free_device_memory(pointer);
    } else {
      host_of_raw_->raw_deleter()(pointer);
    }
  }

  c10::Allocator* host_;
  static inline c10::Allocator* host_of_raw_ = nullptr;
};

}  // namespace

// Both allocators are leaked on purpose: tensors may be freed after static destructors have run.

c10::Allocator* device_allocator() {
  static auto* const memory = new DeviceMemory();
  return memory;
}

bool is_device_memory(const DataPtr& data) { return data.get_deleter() == &free_device_memory; }

void register_device_memory() {
  c10::SetAllocator(c10::kCUDA, device_allocator());
  c10::SetCPUAllocator(new ScopedHostMemory(c10::GetCPUAllocator()));
}

KernelMemory::KernelMemory(DeviceIndex device) : previous_(kernel_device) {
  kernel_device = device;
}

KernelMemory::~KernelMemory() { kernel_device = previous_; }

}  // namespace pipellm
