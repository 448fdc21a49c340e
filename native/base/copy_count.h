// Counts one copy of the program's, from its call to its return.
#pragma once

#include "base/clock.h"
#include "base/counters.h"

namespace pipellm {

class CopyCount {
 public:
  // At the call. Both outlive it.
  CopyCount(Clock& clock, Counters& counters)
      : clock_(clock), counters_(counters), start_(clock.now()), paused_before_(clock.paused()) {}

  // Before the call returns, if it has not failed.
  void done(Direction direction, std::uint64_t nbytes) {
    counters_.add_transfer(direction, nbytes);
    counters_.add(Counter::kPausedNs, clock_.paused() - paused_before_);
    if (nbytes > kSwapBytes) counters_.add(Counter::kWaitedNs, clock_.now() - start_);
  }

 private:
  Clock& clock_;
  Counters& counters_;
  const Nanoseconds start_, paused_before_;
};

}  // namespace pipellm
