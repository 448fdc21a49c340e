// Two ways to do the same work; which is the faster one changes, and is found out by trying.
#pragma once

#include <atomic>
#include <cstdint>

namespace pipellm::provider {

// Whether the help of other threads pays is no constant. It does on an idle machine; on one whose
// cores are all busy, the caller waits for a helper that the kernel has put aside. The way that is
// not taken is tried for a few messages in a row, since the first one has to wake threads up. Any
// thread may call; the figures are approximate then, as they are anyway.
class Trial {
 public:
  // The faster way so far; now and then the other, to learn how that one is doing.
  bool choose_help() {
    const std::uint32_t number = count_.fetch_add(1, std::memory_order_relaxed);
    const std::int64_t alone = alone_.load(std::memory_order_relaxed);
    const std::int64_t helped = helped_.load(std::memory_order_relaxed);
    if (helped == 0) return true;
    if (alone == 0) return false;
    return (helped < alone) != (number % kPeriod < kTries);
  }

  // `cost` is time per unit of work.
  void record(bool was_helped, std::int64_t cost) {
    std::atomic<std::int64_t>& average = was_helped ? helped_ : alone_;
    const std::int64_t before = average.load(std::memory_order_relaxed);
    average.store(before == 0 ? cost : (3 * before + cost) / 4, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint32_t kPeriod = 512;  // messages: of 1 MiB, a twentieth of a second
  static constexpr std::uint32_t kTries = 16;

  std::atomic<std::uint32_t> count_{0};
  std::atomic<std::int64_t> alone_{0}, helped_{0};  // zero: not known yet
};

}  // namespace pipellm::provider
