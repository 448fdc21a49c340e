// Which copies go without asking the planner: what it promised is followed until something departs
// from it. The same, in Python, for the simulator: pipellm/plan/following.py.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "link/transfer.h"
#include "pipelined/seal_ahead.h"

namespace pipellm {

// A place on the line of message numbers, promised to the request for these bytes.
struct Step {
  Speculation speculation;
  std::uintptr_t address;
  std::uint64_t nbytes;
  std::uint32_t number;
};

// Locked by its owner.
class Following {
 public:
  // More was promised. From now on no request waits.
  void extend(const std::vector<Step>& steps) {
    steps_.insert(steps_.end(), steps.begin(), steps.end());
    allowed_ = true;
  }

  // Nothing is promised any more: the planner has to be asked.
  void end() {
    steps_.clear();
    allowed_ = false;
  }

  bool allowed() const { return allowed_; }

  // Whether this copy may go without asking, where `next` is the number of the next message to the
  // device. A small transfer has no place, and may not use up that of another.
  bool fits(const Transfer& transfer, std::uint32_t next) const {
    if (!allowed_) return false;
    if (transfer.direction == kD2h) return true;
    if (transfer.nbytes <= kSmall) return steps_.empty() || steps_.front().number > next;
    if (steps_.empty()) return false;
    const Step& first = steps_.front();
    return first.address == reinterpret_cast<std::uintptr_t>(transfer.host) &&
           first.nbytes == transfer.nbytes && first.number == next;
  }

  // The place of a copy that fits; nullopt if it goes without one.
  std::optional<Step> take(const Transfer& transfer) {
    if (transfer.direction == kD2h || transfer.nbytes <= kSmall) return std::nullopt;
    const Step first = steps_.front();
    steps_.pop_front();
    return first;
  }

 private:
  static constexpr std::uint64_t kSmall = 8 << 10;  // never a swap (pipellm/predict/sizes.py)

  std::deque<Step> steps_;
  bool allowed_ = false;
};

}  // namespace pipellm
