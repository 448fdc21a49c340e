#include "immutable_memory.h"

#include <algorithm>
#include <iterator>

namespace pipellm {

void ImmutableMemory::declare(const void* start, std::uint64_t nbytes) {
  const std::lock_guard lock(mutex_);
  std::uint64_t& length = ranges_[reinterpret_cast<std::uintptr_t>(start)];
  length = std::max(length, nbytes);
}

bool ImmutableMemory::withdraw(const void* start) {
  const std::lock_guard lock(mutex_);
  return ranges_.erase(reinterpret_cast<std::uintptr_t>(start)) == 1;
}

bool ImmutableMemory::contains(const void* start, std::uint64_t nbytes) const {
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::lock_guard lock(mutex_);
  const auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) return false;
  const auto& [before, length] = *std::prev(after);
  return address + nbytes <= before + length;
}

}  // namespace pipellm
