#include "cudart/staging.h"

#include <cstdint>

namespace pipellm::cudart {

Event Events::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      const Event event = free_.back();
      free_.pop_back();
      return event;
    }
  }
  Event event = nullptr;
  return cuda::event_create(&event) == kSuccess ? event : nullptr;
}

void Events::give_back(Event event) {
  const std::lock_guard lock(mutex_);
  free_.push_back(event);
}

Staging::Staging() {
  void* memory = nullptr;
  if (cuda::stream_create(&stream_, kNonBlocking) != kSuccess ||
      cuda::malloc(&memory, kBlocks * kBlockBytes) != kSuccess) {
    return;  // no blocks, and so nothing is staged
  }
  blocks_.reserve(kBlocks);  // pointers to them are handed out
  for (std::size_t i = 0; i < kBlocks; ++i) {
    Block block{static_cast<char*>(memory) + i * kBlockBytes, nullptr, nullptr};
    if (cuda::event_create(&block.filled) != kSuccess ||
        cuda::event_create(&block.used) != kSuccess) {
      return;
    }
    blocks_.push_back(block);
    free_.push_back(&blocks_.back());
  }
}

Blocks Staging::take(std::size_t nbytes) {
  const std::size_t count = (nbytes + kBlockBytes - 1) / kBlockBytes;
  const std::lock_guard lock(mutex_);
  if (count > free_.size()) return {};
  const auto first = free_.end() - static_cast<std::ptrdiff_t>(count);
  Blocks taken(first, free_.end());
  free_.erase(first, free_.end());
  return taken;
}

void Staging::give_back(const Blocks& blocks) {
  const std::lock_guard lock(mutex_);
  free_.insert(free_.end(), blocks.begin(), blocks.end());
}

}  // namespace pipellm::cudart
