// One emulated device as one process uses it: memory, streams, events, copies, the secure channel.
//
// Two kinds of time meet here. The *timeline* says when the modelled device would have finished; the
// *copy engine* says whether the bytes have really moved. A program that waits, waits for both: for
// the first in the emulated clock, for the second with that clock standing still.
//
// Operators run on the CPU at the moment they are launched, so "stream order" for real bytes means:
// before an operator runs, the copies that its stream must see have landed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"
#include "crypto/channel.h"
#include "emulator/copy_engine.h"
#include "emulator/cost_model.h"
#include "emulator/open_channel.h"
#include "emulator/timeline.h"
#include "link/tokens.h"
#include "link/transfer.h"
#include "memory/block_cache.h"
#include "memory/pinned_memory.h"

namespace pipellm {

struct DeviceOptions {
  std::uint64_t memory_bytes = 0;
  bool confidential = false;
  // Whether pinned memory is what it says it is. NVIDIA's confidential mode refuses registration and
  // calls no memory pinned; with a runtime of ours in between, copies are asynchronous after all.
  bool pins = true;
  Engine host_engine = Engine::kOpenssl;
  Engine device_engine = Engine::kOpenssl;  // plays the GPU's own cipher
  CostModel cost;
};

// A point in the work of a stream, and what must really have happened when it is reached.
struct Mark {
  bool reached = false;  // else the rest is not known yet
  Nanoseconds time = 0;
  Sequence command = 0;
};

// Used by one context's driver entries only, which guards `mark`; nullptr: never recorded.
struct Event {
  int device = 0;
  std::shared_ptr<const Mark> mark;
};

class Context {
 public:
  // What is passed by reference is the driver's and outlives every context.
  Context(const DeviceOptions& options, Clock& clock, const PinnedMemory& pinned,
          Counters& counters);
  ~Context();

  BlockCache& memory() { return memory_; }
  CopyEngine& engine() { return engine_; }
  int bounce_file_descriptor(Direction direction) const;

  // Throws ContextLost, CounterExhausted. Takes over the copy's token in every case. When it throws,
  // nobody reads or writes the memory of a blocking copy any more; when ContextLost comes out of here
  // or of any other call, that holds for every copy of the context, and their tokens are released.
  void copy(const PipellmCopy& copy);

  Stream create_stream();
  bool known(Stream stream);
  void synchronize(Stream stream);
  void synchronize();
  bool finished(Stream stream);
  void launch(Stream stream);
  void busy(Stream stream, Nanoseconds duration);

  void record(Event& event, Stream stream);
  bool finished(const Event& event);
  void synchronize(const Event& event);
  void wait_event(Stream stream, const Event& event);
  // The same for an event of another device, in two steps: there, for its bytes and its time; here.
  Nanoseconds await_bytes(const Event& event);
  void wait_until(Stream stream, Nanoseconds time);
  // When an event was or will be over, once it is known.
  std::optional<Nanoseconds> time_of(const Event& event);

  // What a stream does within device memory (context_device.cpp).
  void copy_on_device(Stream stream, std::vector<PipellmDeviceCopy> copies);
  void fill(Stream stream, void* destination, std::uint8_t byte, std::uint64_t nbytes);
  void write_value(Stream stream, std::uint32_t* word, std::uint32_t value);
  void wait_value(Stream stream, const std::uint32_t* word, std::uint32_t value);
  // Before device memory is used for something else: its words are no longer waited for.
  void forget_values(const void* start, std::uint64_t nbytes);

  // Lets go of the buffers of copies that are done, or of all that are under way and then done.
  void reap();
  void finish_and_reap();

  // For a layer that takes numbers of the channel itself, and hands messages to the engine.
  OpenChannel& channel() { return *channel_; }  // not with CC off
  Clock& clock() { return clock_; }
  Counters& counters() { return counters_; }
  const CostModel& cost() const { return options_.cost; }
  // Returns when the time is known at which a stream will have done what is on it by now: whoever
  // copies from and to the host waits, himself, for what his stream waits for. Throws ContextLost.
  Mark reach(Stream stream);
  // A copy of the modelled device's, queued on a stream; `command` moves its bytes, or 0 if what does
  // is not the device's to wait for.
  Span schedule(Stream stream, Direction direction, Nanoseconds ready, Nanoseconds duration,
                Sequence command);
  // If the context is lost: returns when nobody reads or writes a copy's memory any more, and has
  // released the tokens. Every ContextLost that leaves the context has passed this. Not by who holds
  // the channel.
  void settle_if_lost();

  // Tests only: the host's side counts on from `last`, as if so many messages had been sent.
  void skip_to(Direction direction, std::uint32_t last);

  // Before the process ends. From now on only threads that wait do the engine's work.
  void stop_threads() { engine_.stop_thread(); }

 private:
  struct Parties {
    std::unique_ptr<SecureChannel> host, device;
  };
  static Parties shake_hands(const DeviceOptions& options);
  Context(const DeviceOptions& options, Clock& clock, const PinnedMemory& pinned,
          Counters& counters, Parties parties);

  // Each returns the last engine command that uses the transfer's buffers.
  Sequence copy_clear(const Transfer& transfer);
  Sequence copy_sealed_h2d(const Transfer& transfer);
  Sequence copy_sealed_d2h(const Transfer& transfer);

  // What a stream must see has really happened. Throws ContextLost.
  void await(Sequence command);
  // With the lock: reached when all that is on the stream by now has its time, `now` at the earliest.
  std::shared_ptr<const Mark> put_mark(Stream stream, Nanoseconds now);
  std::shared_ptr<const Mark> seen(const Event& event);
  // The same for what an event marks.
  Mark reach(const std::shared_ptr<const Mark>& mark);
  // Puts on the stream what keeps it busy for `duration`, from `issued` at the earliest, and is
  // really done by `within`. Returns when the host has issued it.
  void put_within(Stream stream, Nanoseconds duration, std::uint64_t nbytes,
                  std::function<void()> within);
  void hold(Stream stream, const Mark& mark);  // with the lock
  Span schedule(const Transfer& transfer, Nanoseconds ready, Nanoseconds duration, Sequence command) {
    return schedule(transfer.stream, transfer.direction, ready, duration, command);
  }

  const DeviceOptions options_;
  Clock& clock_;
  const PinnedMemory& pinned_;
  Counters& counters_;
  BlockCache memory_;
  Tokens tokens_;
  CopyEngine engine_;
  const std::unique_ptr<OpenChannel> channel_;  // nullptr with CC off

  std::mutex state_mutex_;  // guards all below; never held while waiting
  Timeline timeline_;
  std::condition_variable mark_reached_;
  struct WrittenValue {
    std::uint32_t value;
    Mark mark;
  };
  std::map<const std::uint32_t*, WrittenValue> values_;  // the last written of each word
};

}  // namespace pipellm
