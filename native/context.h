// One emulated device as one process uses it: memory, streams, events, copies, the secure channel.
//
// Two kinds of time meet here. The *timeline* says when the modelled device would have finished; the
// *copy engine* says whether the bytes have really moved. A program that waits, waits for both: for
// the first in the emulated clock, for the second with that clock standing still.
//
// Operators run on the CPU at the moment they are launched, so "stream order" for real bytes means:
// before an operator runs, the copies that its stream must see have landed.
#pragma once

#include <atomic>
#include <array>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "block_cache.h"
#include "bounce_ring.h"
#include "channel.h"
#include "clock.h"
#include "copy_engine.h"
#include "cost_model.h"
#include "counters.h"
#include "driver_api.h"
#include "pinned_memory.h"
#include "timeline.h"

namespace pipellm {

struct DeviceOptions {
  std::uint64_t memory_bytes = 0;
  bool confidential = false;
  Engine device_engine = Engine::kOpenssl;  // plays the GPU's own cipher
  CostModel cost;
};

// Used by one context's driver entries only; `time` and `command` are guarded by the context.
struct Event {
  int device = 0;
  bool recorded = false;
  Nanoseconds time = 0;
  Sequence command = 0;
};

class Context {
 public:
  // `clock`, `pinned` and `counters` are the driver's and outlive every context.
  Context(const DeviceOptions& options, Clock& clock, const PinnedMemory& pinned, Counters& counters);
  ~Context();

  BlockCache& memory() { return memory_; }
  CopyEngine& engine() { return engine_; }
  int bounce_file_descriptor(Direction direction) const;

  // Throws ContextLost, CounterExhausted. Takes over the copy's token in every case.
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
  // The same for an event of another device, in two steps: there, for its bytes; here, for its time.
  void await_bytes(const Event& event);
  void wait_until(Stream stream, Nanoseconds time);

  // Lets go of the buffers of copies that are done.
  void reap();

  // Tests only: the host's side counts on from `last`, as if so many messages had been sent.
  void skip_to(Direction direction, std::uint32_t last);

 private:
  struct Parties {
    std::unique_ptr<SecureChannel> host, device;
  };
  static Parties shake_hands(const DeviceOptions& options);
  Context(const DeviceOptions& options, Clock& clock, const PinnedMemory& pinned, Counters& counters,
          Parties parties);

  struct Transfer {
    Direction direction;
    std::uint8_t* device;
    std::uint8_t* host;
    std::uint64_t nbytes;
    Stream stream;
    bool pinned;
    bool asynchronous;
  };
  // Who used a bounce slot last, and when the modelled engine is done with it.
  struct SlotUse {
    Sequence command = 0;
    Nanoseconds free_at = 0;
  };
  struct HeldToken {
    Sequence until;
    void* token;
    void (*release)(void*);
  };

  // Each returns the last engine command that uses the transfer's buffers.
  Sequence copy_clear(const Transfer& transfer);
  Sequence copy_sealed_h2d(const Transfer& transfer);
  Sequence copy_sealed_d2h(const Transfer& transfer);

  Span schedule(const Transfer& transfer, Nanoseconds ready, Nanoseconds duration, Sequence command);
  void wait_for_slot(const SlotUse& use);

  const DeviceOptions options_;
  Clock& clock_;
  const PinnedMemory& pinned_;
  Counters& counters_;
  BlockCache memory_;
  std::unique_ptr<SecureChannel> host_side_;
  std::array<std::unique_ptr<BounceRing>, 2> rings_;  // by direction; none with CC off
  std::array<std::vector<SlotUse>, 2> slot_uses_;
  CopyEngine engine_;

  // Held for the length of a sealed copy: one context's copies serialise, and IVs are taken in order.
  std::mutex channel_mutex_;

  std::mutex state_mutex_;  // guards all below; never held while waiting
  Timeline timeline_;
  std::deque<HeldToken> held_;
  std::atomic<bool> holding_{false};
};

}  // namespace pipellm
