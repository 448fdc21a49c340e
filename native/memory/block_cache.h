// Blocks of memory that are kept for the next request of their size, as PyTorch's caching allocators
// keep device and pinned memory: fresh pages cost a page fault each, 4 GB/s at best.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace pipellm {

struct MemoryUse {
  std::uint64_t total = 0;  // 0: no limit
  std::uint64_t allocated = 0;  // in units of 512 bytes, as PyTorch's allocators count
};

// Internally locked.
class BlockCache {
 public:
  explicit BlockCache(std::uint64_t limit) { use_.total = limit; }
  ~BlockCache();  // frees every block, also those still handed out
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  void* allocate(std::uint64_t nbytes);  // nullptr when the limit or the host's memory is reached
  bool release(void* block);             // false: not a block of this cache
  std::uint64_t size_of(const void* block) const;  // 0: not a block of this cache
  // Whether all of it lies inside one block that is handed out.
  bool contains(const void* pointer, std::uint64_t nbytes) const;

  MemoryUse use() const;

 private:
  struct Block {
    std::uint64_t size;     // what it takes of the host's memory
    std::uint64_t counted;  // what it counts against the limit
  };

  void drop_cached();

  mutable std::mutex mutex_;  // guards all below
  MemoryUse use_;
  std::map<std::uintptr_t, Block> handed_out_;                    // by address
  std::unordered_map<std::uint64_t, std::vector<void*>> cached_;  // by size
  std::uint64_t cached_bytes_ = 0;
};

}  // namespace pipellm
