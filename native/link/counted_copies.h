// A layer that counts the program's copies, over one that makes copies of its own.
#pragma once

#include "base/clock.h"
#include "base/counters.h"
#include "link/layer.h"

namespace pipellm {

// Thread-safe.
class CountedCopies final : public Layer {
 public:
  // What is passed by reference outlives it, and `counters` does.
  CountedCopies(const PipellmDriver& below, Clock& clock, std::int64_t* counters);

 private:
  static int copy(void* self, const PipellmCopy* request);

  Clock& clock_;
  Counters counters_;
};

}  // namespace pipellm
