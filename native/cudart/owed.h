// What host memory is still owed: writes to it that are under way.
//
// A copy from the device leaves its stream as soon as the bytes are in a staging block, and reaches
// host memory by a thread of ours. A program learns that a copy is done by waiting for its stream, or
// for whatever comes after it: an event recorded there, a stream that waited for the event. So
// streams and events carry the writes that they vouch for, as sets that are handed on the way CUDA
// hands on order. Nothing here calls CUDA.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "cudart/cuda_runtime.h"

namespace pipellm::cudart {

struct Arrival;
using Arrivals = std::vector<std::shared_ptr<Arrival>>;

// One write on its way to host memory.
struct Arrival {
  std::uintptr_t destination;
  std::size_t nbytes;
  Arrivals after;  // must have arrived before it, since its stream comes after them
  bool arrived = false;  // guarded by Owed's mutex

  bool overlaps(const void* memory, std::size_t size) const {
    const auto start = reinterpret_cast<std::uintptr_t>(memory);
    return start < destination + nbytes && destination < start + size;
  }
};

// A stream as far as order goes. The default stream and a blocking one wait for each other; so two
// blocking ones do as soon as anything on the default stream comes between them, a kernel say, which
// we do not see. They are taken to, always.
struct Lane {
  Stream stream;
  bool blocking;  // or the default stream
};

// Internally locked.
class Owed {
 public:
  // False, in the common case, without a lock: then there is nothing to ask or to hand on.
  bool anything() const { return pending_.load(std::memory_order_acquire) != 0; }

  // A write that `lane` was given. `arrival->after` is set to what the lane vouches for already.
  void add(Lane lane, const std::shared_ptr<Arrival>& arrival);
  void arrive(Arrival& arrival, Error error);

  void record(Event event, Lane lane);
  void wait_event(Lane lane, Event event);
  void forget(Event event);

  // What has not arrived of what somebody vouches for.
  Arrivals of(Lane lane);
  Arrivals of(Event event);
  Arrivals all();
  static void keep_overlapping(Arrivals& arrivals, const void* memory, std::size_t nbytes);

  bool arrived(const Arrival& arrival);  // by now
  void wait(const Arrivals& arrivals);

  // The error of a copy that failed, once: CUDA too reports late, and to whoever asks next.
  Error take_error() { return error_.exchange(kSuccess); }
  Error peek_error() const { return error_.load(); }

 private:
  struct Set {
    Arrivals arrivals;
    bool blocking = false;
  };
  void merge(Arrivals& into, const Arrivals& from);
  Arrivals locked_of(Lane lane);

  std::atomic<std::size_t> pending_{0};
  std::atomic<Error> error_{kSuccess};
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  Arrivals all_;
  std::unordered_map<Stream, Set> streams_;
  std::unordered_map<Event, Arrivals> events_;
};

}  // namespace pipellm::cudart
