// The device's own time: when each stream and each copy engine will have finished what was queued.
//
// A stream may wait for something whose time nobody knows yet: a value that is not written, an event
// that comes after such a wait. What is put on it from then on waits behind, as steps.
//
// Pure arithmetic, without a clock of its own and without a lock: the context that owns it passes
// the time in and guards it.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/direction.h"
#include "link/transfer.h"

namespace pipellm {

using Sequence = std::uint64_t;  // of the copy engine's commands; 0: none

struct Span {
  Nanoseconds start, end;
};

// When one copy engine is busy.
class EngineTimeline {
 public:
  // The first stretch of `duration` at or after `ready` that is still free. A copy that waits for
  // its own stream leaves the engine to the copies of other streams meanwhile, as hardware does,
  // unless `in_order`: under confidential computing the IVs fix the order.
  Span reserve(Nanoseconds ready, Nanoseconds duration, bool in_order);

 private:
  std::vector<Span> busy_;  // disjoint, ascending; neighbours that touch are one
};

class Timeline {
 public:
  explicit Timeline(bool duplex) : duplex_(duplex) {}

  Stream create_stream() { return ++last_stream_; }
  bool known(Stream stream) const { return stream >= 0 && stream <= last_stream_; }

  // What a stream must see: when the modelled device is done with it, and the last engine command
  // whose real effect must have come. A stream that waits for another one's event inherits these.
  struct State {
    Nanoseconds finish = 0;
    Sequence command = 0;
  };
  State state(Stream stream) const;
  Nanoseconds finish_all() const;

  // Work that only this stream waits for.
  Span queue(Stream stream, Nanoseconds ready, Nanoseconds duration);
  // A copy: an engine, too, must be free. Duplex: one for each direction; otherwise one for all, and
  // in order.
  Span queue_copy(Stream stream, Direction direction, Nanoseconds ready,
                  Nanoseconds duration);
  // Nothing queued on `stream` from now on starts before `time` (stream_wait_event).
  void hold(Stream stream, Nanoseconds time);

  // What happens on a stream when all before it has. False: not yet, and it has done nothing. A step
  // puts nothing on a stream itself.
  using Step = std::function<bool()>;
  void put(Stream stream, Step step);
  bool waits(Stream stream) const { return waiting_.contains(stream); }
  std::vector<Stream> waiting() const;  // streams

  void set_command(Stream stream, Sequence sequence);

 private:
  bool duplex_;
  Stream last_stream_ = 0;
  void advance();  // does every step that can be done by now

  std::unordered_map<Stream, State> streams_;
  std::unordered_map<Stream, std::deque<Step>> waiting_;  // never an empty one
  std::array<EngineTimeline, 2> engines_;
};

}  // namespace pipellm
