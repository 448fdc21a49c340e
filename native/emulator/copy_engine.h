// The GPU's copy engine: hardware in reality, played here by a thread.
//
// It takes commands strictly in order. Under confidential computing it opens what comes from the
// host under the IV that it counts itself (the command names only where ciphertext and tag lie), and
// seals what goes to the host, writing IV and tag beside the ciphertext.
//
// Commands run on a thread of the engine's own, started at the first one, or on a thread that waits
// for them, whichever comes first: a blocking copy of few bytes then needs no thread switch.
// An authentication failure is final: the engine drops what is queued, takes nothing more, and every
// wait throws ContextLost.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/counters.h"
#include "crypto/channel.h"
#include "emulator/bounce_ring.h"
#include "emulator/timeline.h"
#include "link/errors.h"

namespace pipellm {

// The sentence that a program reads when a message fails authentication.
std::string authentication_failure(Direction direction, std::uint32_t number);

struct Command {
  Direction direction;
  std::uint8_t* device;
  std::uint8_t* host;  // in the clear; nullptr for a message through `slot`
  BounceSlot* slot;
  std::uint64_t nbytes;
  std::function<void()> done{};  // called when it has taken effect, before any wait for it returns
  // Something else than a copy between host and device: what the device does within its own memory.
  std::function<void()> within{};
};

class CopyEngine {
 public:
  // A tap sees each message while it is in the open: H2D before the engine reads it, D2H after it
  // was written. It may change the slot, as an attacker on the bus could.
  using Tap = std::function<void(Direction, std::uint32_t number, BounceSlot& slot)>;

  // `clock` and `counters` must outlive the engine; the clock stands still while a waiting thread
  // does the engine's work.
  CopyEngine(Clock& clock, Counters& counters, std::unique_ptr<SecureChannel> device_side);
  ~CopyEngine();  // drops what is still queued
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  // Any thread. Commands take effect in the order of their sequence numbers, which start at 1.
  // `wake` false: the caller is about to wait for it anyway. Throws ContextLost.
  Sequence submit(Command command, bool wake);
  void wait(Sequence sequence);  // throws ContextLost, also for commands that were completed
  // Until at most so many bytes are queued. Throws ContextLost.
  void make_room(std::uint64_t nbytes);
  Sequence submitted();
  Sequence completed();  // all, once the context is lost and nothing runs any more
  // Nothing runs, and nothing is queued but what its submitter is going to wait for.
  bool idle();
  bool lost();
  // For a lost context: until nothing of what was queued is being executed.
  void settle();
  // Time on a CPU that went into playing the device so far, on whichever thread; small copies are
  // left out.
  Nanoseconds cpu_time() const { return cpu_time_.load(std::memory_order_relaxed); }

  // Before what commands refer to is destroyed: none runs any more, and none will.
  void discard();

  // Ends the engine's thread after what it is executing; from then on only waiting threads work.
  void stop_thread();

  // The host, too, may find a message forged, or fall out of step: the first reason given is the one
  // that stays. Takes nothing more; what is being executed goes on (`settle`).
  void lose(const std::string& why);
  void lose_to_forgery(Direction direction, std::uint32_t number);

  void set_tap(Tap tap);

 private:
  void thread_main();
  void start_thread();
  void drop_queue();
  // The number of an H2D message that is not authentic.
  std::optional<std::uint32_t> execute(const Command& command, const Tap& tap);
  void run_front(std::unique_lock<std::mutex>& lock);
  template <typename Pending>
  void work_while(std::unique_lock<std::mutex>& lock, Pending pending);
  void lose_locked(const std::string& why);

  Clock& clock_;
  Counters& counters_;
  const std::unique_ptr<SecureChannel> device_side_;  // touched only by who holds `running_`
  std::atomic<Nanoseconds> cpu_time_{0};

  std::mutex mutex_;  // guards all below
  std::condition_variable queued_;
  std::condition_variable finished_;
  std::deque<Command> queue_;
  Sequence submitted_ = 0;
  Sequence completed_ = 0;
  Sequence woken_ = 0;  // the last one that the thread was woken for
  std::uint64_t queued_bytes_ = 0;  // of what is queued or running
  bool running_ = false;  // some thread is executing the front command, without the mutex
  bool stop_ = false;
  std::string lost_;
  Tap tap_;
  std::unique_ptr<std::thread> thread_;
};

}  // namespace pipellm
