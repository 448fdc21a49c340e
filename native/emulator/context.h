// One emulated device as one process uses it: memory, streams, events, copies, the secure channel.
//
// Two kinds of time meet here. The *timeline* says when the modelled device would have finished; the
// *copy engine* says whether the bytes have really moved. A program that waits, waits for both: for
// the first in the emulated clock, for the second with that clock standing still.
//
// Operators run on the CPU at the moment they are launched, so "stream order" for real bytes means:
// before an operator runs, the copies that its stream must see have landed.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"
#include "base/pool.h"
#include "crypto/channel.h"
#include "emulator/bounce_ring.h"
#include "emulator/copy_engine.h"
#include "emulator/cost_model.h"
#include "emulator/timeline.h"
#include "link/driver_api.h"
#include "memory/block_cache.h"
#include "memory/host_memory.h"
#include "memory/write_tracker.h"
#include "pipelined/receiver.h"
#include "pipelined/seal_ahead.h"

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

using Ordinal = std::uint64_t;  // of a context's copies, from 1

// One copy of contiguous bytes, as the program asked for it.
struct Transfer {
  Direction direction;
  std::uint8_t* device;
  std::uint8_t* host;
  std::uint64_t nbytes;
  Stream stream;
  bool pinned;
  bool asynchronous;

  // Whether the program may touch the host's side as soon as the call returns.
  bool blocking() const { return !asynchronous || !pinned; }
};

// Host memory, address and bytes, that is copied together.
using ExpectedGroup = std::vector<std::pair<std::uintptr_t, std::uint64_t>>;

// Whoever decides what is sent when, if it is not to be "when it is asked for, in that order". Called
// without any lock; answers by calling the context's actions, on the same thread, before it returns.
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
};

// A point in the work of a stream, and what must really have happened when it is reached.
struct Mark {
  bool reached = false;  // else the rest is not known yet
  Nanoseconds time = 0;
  Sequence command = 0;
  Receipt receipt = 0;
};

// Used by one context's driver entries only, which guards `mark`; nullptr: never recorded.
struct Event {
  int device = 0;
  std::shared_ptr<const Mark> mark;
};

class Context {
 public:
  // What is passed by reference is the driver's and outlives every context.
  Context(const DeviceOptions& options, Clock& clock, const HostMemory& host_memory,
          Counters& counters);
  ~Context();

  BlockCache& memory() { return memory_; }
  CopyEngine& engine() { return engine_; }
  int bounce_file_descriptor(Direction direction) const;

  // Throws ContextLost, CounterExhausted. Takes over the copy's token in every case. When it throws,
  // nobody reads or writes the memory of a blocking copy any more; when ContextLost comes out of here
  // or of any other call, that holds for every copy of the context, and their tokens are released.
  void copy(const PipellmCopy& copy);

  // From now on `runtime` decides; before the first copy, and once. The threads are the pool's, the
  // arena holds so many messages.
  void set_runtime(std::unique_ptr<Runtime> runtime, std::size_t threads,
                   std::size_t arena_messages);

  // A runtime's actions (context_actions.cpp). Numbers must be the next ones, or they are refused
  // with std::logic_error: the engine would lose the context over them. A copy that is refused waits
  // on; one that fails half-way loses the context, because the two sides no longer count alike.
  void send(Ordinal ordinal, std::uint32_t number, std::optional<Speculation> from);
  void send_nops(std::uint32_t number, std::uint32_t count);
  void receive(Ordinal ordinal, std::uint32_t number);
  // Every copy that was asked for and not sent, in the order asked, sealed now. For a runtime that
  // knows no better; any number goes. Not while another thread does one of these.
  void send_waiting();
  SealAhead& seal_ahead() { return *seal_ahead_; }
  Runtime* runtime() { return runtime_.get(); }  // nullptr: copies go out when they are asked for
  bool tracks_writes() const { return tracker_ != nullptr && tracker_->works(); }
  // Swap-outs that have landed since the last time, in order.
  std::vector<Ordinal> landed();

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

  // Tests only: the host's side counts on from `last`, as if so many messages had been sent.
  void skip_to(Direction direction, std::uint32_t last);

  // Before pinned memory is freed: nothing of it is read any more.
  void stop_reading(const void* start, std::uint64_t nbytes);
  void wait_idle() { pool_->wait_idle(); }
  // The emulated clock stands still and nothing is sealed ahead until `thaw`. For measurements: only
  // the calling thread may be using the device.
  void freeze();
  void thaw();
  // Time on a CPU so far: of the threads that seal and open beside the program's, and what went into
  // playing the device.
  struct CpuTime {
    Nanoseconds pool, device;
  };
  CpuTime cpu_time() const;
  // Tests only: from now on no write is noticed, and if `bytes` no byte that differs either.
  void go_blind(bool bytes) {
    tracker_->go_blind();
    if (bytes) seal_ahead_->go_blind();
  }
  // What was freed since the last time: address and length. Of very many ranges nobody asked for, one
  // that holds them all: to forget more than was freed costs only time.
  std::vector<std::pair<std::uintptr_t, std::uint64_t>> freed();

  // Before the process ends. From now on only threads that wait do the engine's work.
  void stop_threads();

 private:
  struct Parties {
    std::unique_ptr<SecureChannel> host, device;
  };
  static Parties shake_hands(const DeviceOptions& options);
  Context(const DeviceOptions& options, Clock& clock, const HostMemory& host_memory,
          Counters& counters, Parties parties);

  // One copy, from the program's call to its last engine command. With a runtime it is shared by the
  // call and by whoever sends it; what comes after `state` belongs to who is sending it.
  struct Request {
    enum class State { kWaiting, kSending, kSent, kFailed };
    Transfer transfer;
    void* token = nullptr;
    void (*release)(void*) = nullptr;
    State state = State::kWaiting;
    Nanoseconds end = 0;
    Sequence command = 0;
    Receipt receipt = 0;
  };
  // A request in the hands of the thread that sends it. Unless it says `sent`, the request waits on
  // afterwards, or has failed if the context is lost.
  class Sending;
  // Who used a bounce slot last, and when the modelled engine is done with it.
  struct SlotUse {
    Sequence command = 0;
    Nanoseconds free_at = 0;
  };
  struct HeldToken {
    Sequence until;
    Receipt receipt;
    void* token;
    void (*release)(void*);
  };

  // Each returns the last engine command that uses the transfer's buffers.
  Sequence copy_clear(const Transfer& transfer);
  Sequence copy_sealed_h2d(const Transfer& transfer);
  Sequence copy_sealed_d2h(const Transfer& transfer);
  void copy_by_runtime(Request& request);
  void withdraw(Ordinal ordinal, Request& request);

  void require_next(const Endpoint& endpoint, std::uint32_t number);
  // Takes the next `count` numbers of the host's side and calls `body(first)`, which hands their
  // messages to the engine. Throws CounterExhausted, with nothing taken. Whatever `body` throws, the
  // two sides do not count alike any more: the context is lost, and what comes out is ContextLost.
  void in_step(Endpoint& endpoint, std::uint32_t count,
               const std::function<void(std::uint32_t first)>& body);

  // If the context is lost: returns when nobody reads or writes a copy's memory any more, and has
  // released the tokens. Every ContextLost that leaves the context has passed one of these.
  void settle_if_lost();
  // What a stream must see has really happened. Throws ContextLost.
  void await(Sequence command, Receipt receipt);
  // With the lock: reached when all that is on the stream by now has its time, `now` at the earliest.
  std::shared_ptr<const Mark> put_mark(Stream stream, Nanoseconds now);
  std::shared_ptr<const Mark> seen(const Event& event);
  // Wait until the time is known: of the mark, or of all that is on the stream by now. ContextLost.
  Mark reach(const std::shared_ptr<const Mark>& mark);
  Mark reach(Stream stream);
  // Puts on the stream what keeps it busy for `duration`, from `issued` at the earliest, and is
  // really done by `within`. Returns when the host has issued it.
  void put_within(Stream stream, Nanoseconds duration, std::uint64_t nbytes,
                  std::function<void()> within);
  void order(std::optional<Stream> stream);
  void flush(std::optional<Stream> stream);
  void hold(Stream stream, const Mark& mark);  // with the lock
  void hold(Request& request);
  void hold_locked(Request& request);

  Span schedule(const Transfer& transfer, Nanoseconds ready, Nanoseconds duration, Sequence command);
  void wait_for_slot(const SlotUse& use);
  bool is_free(const SlotUse& use);

  const DeviceOptions options_;
  Clock& clock_;
  const HostMemory& host_memory_;
  Counters& counters_;
  BlockCache memory_;
  std::unique_ptr<SecureChannel> host_side_;
  std::array<std::unique_ptr<BounceRing>, 2> rings_;  // by direction; none with CC off
  std::array<std::vector<SlotUse>, 2> slot_uses_;
  CopyEngine engine_;

  // With a runtime only. In the order of their destruction, reversed: jobs of the pool use the rest.
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<WriteTracker> tracker_;
  std::unique_ptr<SealAhead> seal_ahead_;
  std::unique_ptr<Receiver> receiver_;
  std::uint8_t nop_target_ = 0;  // where bytes of no meaning go; none of the program's memory
  std::atomic<std::size_t> unsent_{0};

  // Held for the length of a sealed copy: one context's copies serialise, and IVs are taken in order.
  std::mutex channel_mutex_;

  std::mutex state_mutex_;  // guards all below; never held while waiting
  Timeline timeline_;
  std::condition_variable mark_reached_;
  struct WrittenValue {
    std::uint32_t value;
    Mark mark;
  };
  std::map<const std::uint32_t*, WrittenValue> values_;  // the last written of each word
  std::deque<HeldToken> held_;
  std::atomic<bool> holding_{false};
  std::unordered_map<Ordinal, std::shared_ptr<Request>> requests_;
  std::condition_variable request_changed_;  // its state
  Ordinal last_ordinal_ = 0;
  Stream nop_stream_ = 0;
  std::deque<std::pair<Receipt, Ordinal>> landing_;
  std::map<std::uintptr_t, std::uintptr_t> freed_;  // begin to end, apart from each other
};

}  // namespace pipellm
