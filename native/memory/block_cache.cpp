#include "memory/block_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

namespace pipellm {

namespace {

constexpr std::uint64_t kAlignment = 512;  // as the CUDA caching allocator's
// From here on pages of its own: writes to a neighbour would look like writes to this block. What is
// smaller is never sealed ahead (facts: small transfers are below 8 KB).
constexpr std::uint64_t kPaged = 8 << 10;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kLarge = 1 << 20;  // from here on in steps of 2 MiB
constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;
// What may lie idle. Beyond it blocks go back to the system.
constexpr std::uint64_t kCachedLimit = std::uint64_t{1} << 30;

std::uint64_t alignment_of(std::uint64_t nbytes) {
  if (nbytes > kLarge) return kHugePage;
  return nbytes >= kPaged ? kPage : kAlignment;
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t step) {
  return (value + step - 1) / step * step;
}

void* obtain(std::uint64_t nbytes) {
  void* block = std::aligned_alloc(alignment_of(nbytes), nbytes);
  if (block != nullptr && nbytes > kLarge) (void)madvise(block, nbytes, MADV_HUGEPAGE);
  return block;
}

}  // namespace

BlockCache::~BlockCache() {
  for (const auto& [address, block] : handed_out_) std::free(reinterpret_cast<void*>(address));
  drop_cached();
}

void* BlockCache::allocate(std::uint64_t nbytes) {
  nbytes = std::max<std::uint64_t>(nbytes, 1);
  const std::uint64_t size = round_up(nbytes, alignment_of(nbytes));
  const std::uint64_t counted = round_up(nbytes, kAlignment);
  const std::lock_guard lock(mutex_);
  if (use_.total != 0 && use_.allocated + counted > use_.total) return nullptr;
  void* block = nullptr;
  if (auto kept = cached_.find(size); kept != cached_.end() && !kept->second.empty()) {
    block = kept->second.back();
    kept->second.pop_back();
    cached_bytes_ -= size;
  } else {
    block = obtain(size);
    if (block == nullptr) {
      drop_cached();
      block = obtain(size);
    }
    if (block == nullptr) return nullptr;
  }
  handed_out_.emplace(reinterpret_cast<std::uintptr_t>(block), Block{size, counted});
  use_.allocated += counted;
  return block;
}

bool BlockCache::release(void* block) {
  const std::lock_guard lock(mutex_);
  const auto found = handed_out_.find(reinterpret_cast<std::uintptr_t>(block));
  if (found == handed_out_.end()) return false;
  const auto [size, counted] = found->second;
  handed_out_.erase(found);
  use_.allocated -= counted;
  if (cached_bytes_ + size > kCachedLimit) {
    std::free(block);
  } else {
    cached_[size].push_back(block);
    cached_bytes_ += size;
  }
  return true;
}

std::uint64_t BlockCache::size_of(const void* block) const {
  const std::lock_guard lock(mutex_);
  const auto found = handed_out_.find(reinterpret_cast<std::uintptr_t>(block));
  return found == handed_out_.end() ? 0 : found->second.size;
}

bool BlockCache::contains(const void* pointer, std::uint64_t nbytes) const {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const std::lock_guard lock(mutex_);
  auto after = handed_out_.upper_bound(address);
  if (after == handed_out_.begin()) return false;
  const auto& [start, block] = *std::prev(after);
  return address + nbytes <= start + block.size;
}

MemoryUse BlockCache::use() const {
  const std::lock_guard lock(mutex_);
  return use_;
}

void BlockCache::drop_cached() {
  for (auto& [size, blocks] : cached_) {
    for (void* block : blocks) std::free(block);
    blocks.clear();
  }
  cached_bytes_ = 0;
}

}  // namespace pipellm
