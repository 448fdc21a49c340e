// Threads that read the host's memory together: what one transfer gathers, and what is compared.
#pragma once

#include <cstddef>
#include <functional>

#include "base/pool.h"

namespace pipellm::prefetch {

// Internally locked.
class Readers {
 public:
  explicit Readers(std::size_t threads) : pool_(threads > 1 ? threads - 1 : 0) {}

  // Calls `body` once with each number below `count`, in any order, by the calling thread and by as many
  // others as are free; returns when all calls have. The body does not throw.
  void each(std::size_t count, const std::function<void(std::size_t)>& body);
  void stop() { pool_.stop(); }  // from now on the calling thread is alone

 private:
  Pool pool_;
};

}  // namespace pipellm::prefetch
