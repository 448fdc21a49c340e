// Which host memory the device may reach by itself: allocated as such, or registered.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "memory/block_cache.h"

namespace pipellm {

// Internally locked.
class PinnedMemory {
 public:
  void* allocate(std::uint64_t nbytes) { return blocks_.allocate(nbytes); }
  std::uint64_t size_of(const void* block) const { return blocks_.size_of(block); }
  bool release(void* block) { return blocks_.release(block); }

  // False if it overlaps memory that is pinned already, as cudaHostRegister refuses that.
  bool add(void* start, std::uint64_t nbytes);
  bool remove(void* start);  // false: nothing was registered at this address

  std::uint64_t registered(const void* start) const;  // bytes, at this very address

  bool contains(const void* start, std::uint64_t nbytes) const;

 private:
  BlockCache blocks_{0};
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, std::uint64_t> registered_;  // address to length
};

}  // namespace pipellm
