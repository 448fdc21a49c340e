// Blocks of device memory that copies pass through, on one device.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "cudart/cuda_runtime.h"

namespace pipellm::cudart {

// Tests build with fewer and smaller ones, to see them run out.
#ifndef PIPELLM_STAGING_BLOCK_BYTES
#define PIPELLM_STAGING_BLOCK_BYTES (4 << 20)
#define PIPELLM_STAGING_BLOCKS 32
#endif
inline constexpr std::size_t kBlockBytes = PIPELLM_STAGING_BLOCK_BYTES;
inline constexpr std::size_t kBlocks = PIPELLM_STAGING_BLOCKS;

struct Block {
  char* memory;
  Event filled;  // the copy into it is done
  Event used;    // the copy out of it is done
};
using Blocks = std::vector<Block*>;

// Events that belong to nobody in particular. Internally locked.
class Events {
 public:
  Event take();  // nullptr if CUDA has none
  void give_back(Event event);

 private:
  std::mutex mutex_;  // guards free_
  std::vector<Event> free_;
};

// Internally locked. What it has from CUDA is never given back: it ends with the device's context.
class Staging {
 public:
  // On the current device.
  Staging();

  // Blocks for `nbytes`; none if there are not enough. Never waits: whoever gets none does without.
  Blocks take(std::size_t nbytes);
  void give_back(const Blocks& blocks);

  Stream stream() const { return stream_; }  // for copies between host and blocks; else idle

 private:
  Stream stream_ = nullptr;
  std::vector<Block> blocks_;
  std::mutex mutex_;  // guards free_
  Blocks free_;
};

}  // namespace pipellm::cudart
