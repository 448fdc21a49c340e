#include "memory/pinned_memory.h"

#include <algorithm>

namespace pipellm {

bool PinnedMemory::add(void* start, std::uint64_t nbytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  if (blocks_.contains(start, 1)) return false;
  const std::lock_guard lock(mutex_);
  const auto after = registered_.lower_bound(address);
  if (after != registered_.end() && after->first < address + nbytes) return false;
  if (after != registered_.begin()) {
    const auto& [before, length] = *std::prev(after);
    if (before + length > address) return false;
  }
  registered_.emplace(address, nbytes);
  return true;
}

bool PinnedMemory::remove(void* start) {
  const std::lock_guard lock(mutex_);
  return registered_.erase(reinterpret_cast<std::uintptr_t>(start)) == 1;
}

std::uint64_t PinnedMemory::registered(const void* start) const {
  const std::lock_guard lock(mutex_);
  const auto found = registered_.find(reinterpret_cast<std::uintptr_t>(start));
  return found == registered_.end() ? 0 : found->second;
}

bool PinnedMemory::contains(const void* start, std::uint64_t nbytes) const {
  const std::uint64_t length = std::max<std::uint64_t>(nbytes, 1);
  if (blocks_.contains(start, length)) return true;
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::lock_guard lock(mutex_);
  const auto after = registered_.upper_bound(address);
  if (after == registered_.begin()) return false;
  const auto& [before, registered] = *std::prev(after);
  return address + length <= before + registered;
}

}  // namespace pipellm
