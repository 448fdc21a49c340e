// One of the program's streams, as we see it: what is due on it, and what we put on it.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "prefetch/checks.h"
#include "prefetch/flight.h"
#include "prefetch/returns.h"
#include "prefetch/transfers.h"

namespace pipellm::prefetch {

// Device copies that one launch will do, in no order among themselves, and what they need.
struct Due {
  std::vector<PipellmDeviceCopy> copies;
  std::vector<std::shared_ptr<Gate>> gates;  // to be waited for before
  std::vector<std::shared_ptr<Place>> places;
  std::vector<std::shared_ptr<Piece>> pieces;  // copied from
  std::vector<Check> checks;
  std::shared_ptr<Gate> checked;  // opens when they hold
  std::vector<std::shared_ptr<Gather>> gathers;
  std::vector<std::shared_ptr<Return>> returns;
  std::vector<Hold> holds;
  std::vector<Range> device, host;  // what of the program's memory all this uses

  bool empty() const { return copies.empty() && gates.empty() && holds.empty(); }
  // Whether the copy may not share a launch with what is due: one touches what the other writes.
  bool conflicts(const PipellmDeviceCopy& copy) const;
};

struct Lane {
  explicit Lane(std::int64_t number) : stream(number) {}

  const std::int64_t stream;
  // Nothing is under way on it but copies of our copy thread, in their order. Cleared before anything
  // else is put on it.
  std::atomic<bool> quiet{false};
  std::atomic<bool> has_due{false};

  // Held while calls are put on the stream, so that each is in its place. They do not wait.
  std::mutex putting;
  // Guarded by `putting`.
  Due due;
  std::deque<std::shared_ptr<Flight>> flights;  // launched, and not known to be over
  // Copies to the host that somebody who waits for this stream must find home.
  std::vector<std::shared_ptr<Return>> owed;
};

// An event, as the program has it.
struct LayerEvent {
  void* below;
  std::int32_t device;
  std::mutex mutex;
  std::vector<std::shared_ptr<Return>> owed;  // guarded by it
};

}  // namespace pipellm::prefetch
