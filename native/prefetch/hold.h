// What a program gave along with a copy, to be released when its bytes have really moved: not by a
// thread of ours, and under no lock of ours.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "link/driver_api.h"

namespace pipellm::prefetch {

// Shared by all that still works on a copy.
using Hold = std::shared_ptr<void>;

// Internally locked. Outlives its holds.
class Holds {
 public:
  // Takes over the copy's token; nullptr if it has none.
  Hold take(const PipellmCopy& copy) {
    if (copy.release == nullptr) return nullptr;
    return {copy.token, [this, release = copy.release](void* token) {
              const std::lock_guard lock(mutex_);
              loose_.emplace_back(token, release);
            }};
  }

  // Those that nobody has any more. For a thread of the program's, inside of a call.
  void release() {
    std::vector<std::pair<void*, void (*)(void*)>> loose;
    {
      const std::lock_guard lock(mutex_);
      loose.swap(loose_);
    }
    for (const auto& [token, release] : loose) release(token);
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<void*, void (*)(void*)>> loose_;
};

}  // namespace pipellm::prefetch
