// The tokens of copies whose bytes are still moving.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>

namespace pipellm {

// What a copy waits for, or how far things have come: the last engine command, and the last receipt of
// what is opened behind the engine. Both are numbered from 1; 0: none.
struct Progress {
  std::uint64_t command = 0, receipt = 0;
};

// Internally locked.
class Tokens {
 public:
  // Takes over the token until `until` is reached. Nothing, if `release` is nullptr.
  void hold(void (*release)(void*), void* token, const Progress& until);

  // Releases what waits for no more than `reached`. No lock may be held: to let go of a tensor frees
  // its memory, which comes back into the driver.
  void let_go(const Progress& reached);

  // False only if none was held when the calling thread looked.
  bool any() const { return any_.load(std::memory_order_relaxed); }

 private:
  struct Held {
    void (*release)(void*);
    void* token;
    Progress until;
  };

  std::mutex mutex_;  // guards `held_`
  std::deque<Held> held_;
  std::atomic<bool> any_{false};
};

}  // namespace pipellm
