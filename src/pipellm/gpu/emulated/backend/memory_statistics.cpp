#include "memory_statistics.h"

#include "current.h"
#include "driver.h"

#include <c10/core/AllocatorConfig.h>

#include <array>
#include <mutex>
#include <unordered_map>

namespace pipellm {

namespace {

using c10::DeviceIndex;
using c10::CachingAllocator::Stat;
using c10::CachingAllocator::StatArray;
using c10::CachingAllocator::StatType;
using c10::CachingDeviceAllocator::DeviceStats;

constexpr uint64_t kUnit = 512;

uint64_t in_units(size_t nbytes) { return (nbytes + kUnit - 1) / kUnit * kUnit; }

struct OfDevice {
  DeviceStats stats;
  uint64_t claimed = 0;  // bytes, including what the driver has not given yet
  double fraction = 1;
};

struct Block {
  DeviceIndex device;
  size_t nbytes;
};

struct Everything {
  std::mutex mutex;  // guards all below
  std::array<OfDevice, kMaxDevices> devices;
  std::unordered_map<void*, Block> blocks;
};

// Leaked: tensors may be freed after static destructors have run.
auto& everything = *new Everything();

OfDevice& of(DeviceIndex device) { return everything.devices.at(static_cast<size_t>(device)); }

uint64_t total_memory(DeviceIndex device) {
  PipellmMemoryInfo info{};
  call<&PipellmDriver::memory_info>(device, &info);
  return info.total;
}

uint64_t share(double fraction, uint64_t total) {
  return static_cast<uint64_t>(fraction * static_cast<double>(total));
}

// All that a block changes: `change` is Stat's increase or decrease. Nothing is cached, so each block
// is a segment of its own.
template <typename Change>
void count(DeviceStats& stats, size_t nbytes, Change change) {
  const uint64_t size = in_units(nbytes);
  const auto pool = size <= c10::CachingAllocator::kSmallSize ? StatType::SMALL_POOL
                                                              : StatType::LARGE_POOL;
  const auto both = [&](StatArray& array, uint64_t amount) {
    (array[static_cast<size_t>(StatType::AGGREGATE)].*change)(amount);
    (array[static_cast<size_t>(pool)].*change)(amount);
  };
  for (StatArray* blocks : {&stats.allocation, &stats.segment, &stats.active}) both(*blocks, 1);
  for (StatArray* bytes : {&stats.allocated_bytes, &stats.reserved_bytes, &stats.active_bytes}) {
    both(*bytes, size);
  }
  both(stats.requested_bytes, nbytes);
}

template <typename Reset>
void reset(DeviceStats& stats, Reset how) {
  for (StatArray* array : {&stats.allocation, &stats.segment, &stats.active, &stats.allocated_bytes,
                           &stats.reserved_bytes, &stats.active_bytes, &stats.requested_bytes}) {
    for (Stat& stat : *array) (stat.*how)();
  }
}

}  // namespace

bool claim_memory(DeviceIndex device, size_t nbytes) {
  const std::lock_guard lock(everything.mutex);
  OfDevice& mine = of(device);
  const uint64_t claimed = mine.claimed + in_units(nbytes);
  if (mine.fraction < 1 && claimed > share(mine.fraction, total_memory(device))) return false;
  mine.claimed = claimed;
  return true;
}

void allocated(DeviceIndex device, size_t nbytes, void* block) {
  const std::lock_guard lock(everything.mutex);
  everything.blocks[block] = {device, nbytes};
  DeviceStats& stats = of(device).stats;
  count(stats, nbytes, &Stat::increase);
  ++stats.num_device_alloc;
}

void not_allocated(DeviceIndex device, size_t nbytes) {
  const std::lock_guard lock(everything.mutex);
  of(device).claimed -= in_units(nbytes);
}

void freed(void* block) {
  // There the lock may be held for ever, by a thread of the parent's.
  if (driver().in_bad_fork(driver().self)) return;
  const std::lock_guard lock(everything.mutex);
  const auto found = everything.blocks.find(block);
  if (found == everything.blocks.end()) return;
  const auto [device, nbytes] = found->second;
  everything.blocks.erase(found);
  of(device).claimed -= in_units(nbytes);
  DeviceStats& stats = of(device).stats;
  count(stats, nbytes, &Stat::decrease);
  ++stats.num_device_free;
}

void count_out_of_memory(DeviceIndex device) {
  const std::lock_guard lock(everything.mutex);
  DeviceStats& stats = of(device).stats;
  ++stats.num_alloc_retries;  // the driver has tried again when finished copies had let go of theirs
  ++stats.num_ooms;
}

DeviceStats memory_statistics(DeviceIndex device) {
  const std::lock_guard lock(everything.mutex);
  return of(device).stats;
}

void reset_accumulated_statistics(DeviceIndex device) {
  const std::lock_guard lock(everything.mutex);
  DeviceStats& stats = of(device).stats;
  reset(stats, &Stat::reset_accumulated);
  stats.num_alloc_retries = stats.num_ooms = stats.num_device_alloc = stats.num_device_free = 0;
}

void reset_peak_statistics(DeviceIndex device) {
  const std::lock_guard lock(everything.mutex);
  reset(of(device).stats, &Stat::reset_peak);
}

void limit_memory_fraction(DeviceIndex device, double fraction) {
  const std::lock_guard lock(everything.mutex);
  of(device).fraction = fraction;
}

double memory_fraction(DeviceIndex device) {
  const std::lock_guard lock(everything.mutex);
  return of(device).fraction;
}

uint64_t memory_limit(DeviceIndex device) {
  return share(memory_fraction(device), total_memory(device));
}

}  // namespace pipellm
