// Whether the program waits for each large copy right after it has asked for it. Then it gains nothing from
// another thread's making it, and its own is there at once.
#pragma once

#include <atomic>

namespace pipellm::prefetch {

// Thread-safe. A program of several threads may be misjudged, which costs it time and nothing else.
class WaitHabit {
 public:
  // For a copy that could be made either way.
  void asks() { asked_ = true; }
  // For it, or for all.
  void waits() {
    if (asked_.exchange(false)) ++in_a_row_;
  }
  // It does anything else.
  void goes_on() {
    if (asked_.exchange(false)) in_a_row_ = 0;
  }
  bool is_certain() const { return in_a_row_ >= kCertain; }

 private:
  static constexpr int kCertain = 4;

  std::atomic<bool> asked_{false};
  std::atomic<int> in_a_row_{0};
};

}  // namespace pipellm::prefetch
