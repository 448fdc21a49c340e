// The pipeline over one emulated device: every copy is a request, which a runtime sends when it sees
// fit; swap-ins are sealed ahead of it on a pool, swap-outs opened behind the program's back.
//
// The device below knows nothing of it. It takes the numbers of the device's channel and hands messages
// to its engine (emulator/open_channel.h), and keeps by itself what each stream must still receive.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/pool.h"
#include "emulator/context.h"
#include "link/tokens.h"
#include "link/transfer.h"
#include "memory/declarations.h"
#include "memory/freed_ranges.h"
#include "memory/pinned_memory.h"
#include "memory/write_tracker.h"
#include "pipelined/receiver.h"
#include "pipelined/runtime.h"
#include "pipelined/seal_ahead.h"

namespace pipellm {

// Thread-safe.
class Pipeline {
 public:
  struct Options {
    std::size_t threads;         // of the pool
    std::size_t arena_messages;  // that may lie sealed at a time
  };
  using MakeRuntime = std::function<std::unique_ptr<Runtime>(Pipeline&)>;

  // What is passed by reference outlives this; the device has confidential computing on, and nobody
  // else takes numbers of its channel.
  Pipeline(Context& device, const PinnedMemory& pinned, const Declarations& declarations,
           const Options& options, const MakeRuntime& make_runtime);
  ~Pipeline();  // the device's engine takes nothing more

  // As Context::copy, for any but no bytes.
  void copy(const PipellmCopy& copy);

  // Something depends on what a stream (nullopt: any) was given, or the program waits for it: the
  // runtime is asked to send it. Throw ContextLost, and what a runtime's actions throw.
  void order(std::optional<Stream> stream);
  void flush(std::optional<Stream> stream);

  // The last swap-out that a stream must see, or that was asked for at all; 0: none. A stream that
  // waits for an event inherits what the event's stream had to see.
  Receipt due(Stream stream);
  Receipt last_due() const { return receiver_->last(); }
  void inherit(Stream stream, Receipt receipt);
  // Until it is home. Throws ContextLost.
  void await(Receipt receipt);

  // As Context's, of which they do the pipeline's part; `settle_if_lost` does both.
  void reap();
  void finish_and_reap();
  void settle_if_lost();

  // A runtime's actions (pipeline_actions.cpp). Numbers must be the next ones, or they are refused
  // with std::logic_error: the engine would lose the context over them. A copy that is refused waits
  // on; one that fails half-way loses the context, because the two sides no longer count alike.
  Became send(Ordinal ordinal, std::uint32_t number, std::optional<Speculation> from);
  void send_nops(std::uint32_t number, std::uint32_t count);
  void receive(Ordinal ordinal, std::uint32_t number);
  // The number of the next message. While nobody does one of these.
  std::uint32_t next(Direction direction) { return device_.channel().endpoint(direction).last() + 1; }
  // Every copy that was asked for and not sent, in the order asked, sealed now. For a runtime that
  // knows no better; any number goes. Not while another thread does one of these.
  void send_waiting();
  SealAhead& seal_ahead() { return *seal_ahead_; }
  // Swap-outs that have landed since the last time, in order.
  std::vector<Ordinal> landed();
  // What was freed since the last time: address and length.
  std::vector<std::pair<std::uintptr_t, std::uint64_t>> freed() { return freed_.take(); }
  bool any_freed() const { return freed_.any(); }

  Runtime& runtime() { return *runtime_; }

  // Before pinned memory is freed: nothing of it is read any more.
  void stop_reading(const void* start, std::uint64_t nbytes);
  void wait_idle();
  // Until `thaw` nothing is sealed ahead or opened by the pool. For measurements.
  void freeze();
  void thaw();
  bool idle() const { return runtime_->idle() && pool_->idle(); }
  void stop_threads();
  // Time on a CPU so far of the threads that seal and open beside the program's.
  Nanoseconds cpu_time() const { return pool_->cpu_time(); }
  // Tests only: from now on no write is noticed, and if `bytes` no byte that differs either.
  void go_blind(bool bytes);

 private:
  // One copy, from the program's call to its last engine command, shared by the call and by whoever
  // sends it; what comes after `state` belongs to who is sending it.
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

  void go(Request& call);
  void withdraw(Ordinal ordinal, Request& request);
  void hold(Request& request);
  void await(Sequence command, Receipt receipt);
  Progress reached() const;

  Context& device_;
  const PinnedMemory& pinned_;
  Clock& clock_;

  // In the order of their destruction, reversed: jobs of the pool use the rest.
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<WriteTracker> tracker_;
  std::unique_ptr<SealAhead> seal_ahead_;
  std::unique_ptr<Receiver> receiver_;
  std::uint8_t nop_target_ = 0;  // where bytes of no meaning go; none of the program's memory
  const Stream nop_stream_;
  std::atomic<std::size_t> unsent_{0};
  Tokens tokens_;
  FreedRanges freed_;

  std::mutex mutex_;  // guards all below; never held while waiting
  std::unordered_map<Ordinal, std::shared_ptr<Request>> requests_;
  std::condition_variable request_changed_;  // its state
  Ordinal last_ordinal_ = 0;
  std::deque<std::pair<Receipt, Ordinal>> landing_;
  std::unordered_map<Stream, Receipt> due_;
};

}  // namespace pipellm
