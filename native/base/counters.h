// What happened, counted in memory that belongs to Python: a file that several processes map, so
// that the figures of a process that was killed are still there.
//
// Only ever incremented, by any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/direction.h"

namespace pipellm {

enum class Counter : std::size_t {
  kH2dTransfers,
  kH2dBytes,
  kH2dSwaps,
  kD2hTransfers,
  kD2hBytes,
  kD2hSwaps,
  kAuthFailures,
  kPausedNs,          // how long the emulated clock stood still
  kSealedAheadBytes,  // sealed before they were asked for,
  kWastedBytes,       // and those of them that were wiped
  kHiddenNs,          // sealing that took place before it was asked for, and was sent
  kWaitedNs,          // program threads inside the calls of swaps
  kUnseenWrites,      // messages whose plaintext had changed, which only its bytes told
  kLinkTransfers,     // copies by the driver below all layers
  kLinkBytes,
};

inline constexpr std::array kCounterNames = {
    "h2d_transfers", "h2d_bytes", "h2d_swaps", "d2h_transfers",
    "d2h_bytes",     "d2h_swaps", "auth_failures", "paused_ns",
    "sealed_ahead_bytes", "wasted_bytes", "hidden_ns", "waited_ns", "unseen_writes",
    "link_transfers", "link_bytes",
};

// Swaps are transfers above this size (facts: the paper's threshold, 128 KB).
inline constexpr std::uint64_t kSwapBytes = 128 * 1024;

class Counters {
 public:
  // `values` holds kCounterNames.size() numbers and outlives this object.
  explicit Counters(std::int64_t* values) : values_(values) {}

  void add(Counter counter, std::int64_t amount) {
    std::atomic_ref<std::int64_t>(values_[static_cast<std::size_t>(counter)])
        .fetch_add(amount, std::memory_order_relaxed);
  }

  void add_transfer(Direction direction, std::uint64_t nbytes) {
    const bool h2d = direction == kH2d;
    add(h2d ? Counter::kH2dTransfers : Counter::kD2hTransfers, 1);
    add(h2d ? Counter::kH2dBytes : Counter::kD2hBytes, static_cast<std::int64_t>(nbytes));
    if (nbytes > kSwapBytes) add(h2d ? Counter::kH2dSwaps : Counter::kD2hSwaps, 1);
  }

  // Where a layer makes copies of its own, it counts the program's. Before anybody copies.
  void leave_requests_to_a_layer() { layered_ = true; }
  bool layered() const { return layered_; }

 private:
  std::int64_t* values_;
  bool layered_ = false;
};

}  // namespace pipellm
