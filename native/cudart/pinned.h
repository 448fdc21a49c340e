// Host memory that the program had from cudaHostAlloc, and that only copies touch from the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace pipellm::cudart {

// Internally locked.
class Pinned {
 public:
  void add(const void* memory, std::size_t nbytes) {
    const std::lock_guard lock(mutex_);
    blocks_[reinterpret_cast<std::uintptr_t>(memory)] = nbytes;
  }

  // Nothing, if `memory` is not inside a block.
  void remove(const void* memory) {
    const std::lock_guard lock(mutex_);
    const auto block = find(memory);
    if (block != blocks_.end()) blocks_.erase(block);
  }

  bool contains(const void* memory, std::size_t nbytes) {
    const std::lock_guard lock(mutex_);
    const auto block = find(memory);
    return block != blocks_.end() &&
           reinterpret_cast<std::uintptr_t>(memory) - block->first <= block->second &&
           nbytes <= block->second - (reinterpret_cast<std::uintptr_t>(memory) - block->first);
  }

 private:
  using Blocks = std::map<std::uintptr_t, std::size_t>;  // nbytes by address

  Blocks::iterator find(const void* memory) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    auto block = blocks_.upper_bound(address);
    if (block == blocks_.begin()) return blocks_.end();
    --block;
    return address - block->first < block->second ? block : blocks_.end();
  }

  std::mutex mutex_;
  Blocks blocks_;
};

}  // namespace pipellm::cudart
