// What torch.cuda.memory_stats() tells, and the part of the device that the process may use: counted
// as PyTorch's caching allocator does, in units of 512 bytes, by pool.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

namespace pipellm {

// Counts a block before the driver is asked for it. False: the process would then have more than it
// allows itself (limit_memory_fraction). Whoever gets true calls `allocated` or `not_allocated`.
bool claim_memory(c10::DeviceIndex device, size_t nbytes);
void allocated(c10::DeviceIndex device, size_t nbytes, void* block);
void not_allocated(c10::DeviceIndex device, size_t nbytes);
// Before the driver gets `block` back. Does nothing in a child of a process that used the device.
void freed(void* block);

void count_out_of_memory(c10::DeviceIndex device);

c10::CachingDeviceAllocator::DeviceStats memory_statistics(c10::DeviceIndex device);
void reset_accumulated_statistics(c10::DeviceIndex device);
void reset_peak_statistics(c10::DeviceIndex device);

// torch.cuda.set_per_process_memory_fraction: of the device's whole memory.
void limit_memory_fraction(c10::DeviceIndex device, double fraction);
double memory_fraction(c10::DeviceIndex device);
uint64_t memory_limit(c10::DeviceIndex device);  // bytes

}  // namespace pipellm
