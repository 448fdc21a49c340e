// Whoever decides what is sent when, if it is not to be "when it is asked for, in that order".
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "link/transfer.h"

namespace pipellm {

using Ordinal = std::uint64_t;  // of a pipeline's copies, from 1

// Host memory, address and bytes, that is copied together.
using ExpectedGroup = std::vector<std::pair<std::uintptr_t, std::uint64_t>>;

// Called without any lock; answers by calling the pipeline's actions, on the same thread, before it
// returns.
class Runtime {
 public:
  virtual ~Runtime() = default;
  // A copy is asked for. It need not be sent yet, unless it is blocking.
  virtual void request(Ordinal ordinal, const Transfer& transfer) = 0;
  // Something depends on the copies of a stream (nullopt: of any) that were not sent yet.
  virtual void order(std::optional<Stream> stream) = 0;
  // The program waits for them.
  virtual void synchronize(std::optional<Stream> stream) = 0;
  // What the program says that it will copy to the device next.
  virtual void expect(const std::vector<ExpectedGroup>&) {}
  // The program ends: nothing is sealed ahead any more, and what was asked for is sent.
  virtual void close() {}

  // Of its own threads. Until `thaw` none works; whether none is at work; until none is; for good.
  virtual void freeze() {}
  virtual void thaw() {}
  virtual bool idle() const { return true; }
  virtual void wait_idle() {}
  virtual void stop_threads() {}
};

}  // namespace pipellm
