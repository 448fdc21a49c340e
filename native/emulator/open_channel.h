// The host's end of one context's channel: the numbers of its messages, and the bounce slots that they
// pass through. The emulated driver is open: who lies over it may take numbers and send under them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "crypto/channel.h"
#include "emulator/bounce_ring.h"
#include "emulator/copy_engine.h"

namespace pipellm {

class OpenChannel {
 public:
  // The engine, at the channel's other end, and the clock outlive this.
  OpenChannel(std::unique_ptr<SecureChannel> host_side, CopyEngine& engine, Clock& clock);

  Endpoint& endpoint(Direction direction) {
    return direction == kH2d ? host_side_->h2d : host_side_->d2h;
  }
  BounceRing& ring(Direction direction) { return direction == kH2d ? h2d_ring_ : d2h_ring_; }

  // One context's copies serialise, and numbers are taken in order. Whoever takes some holds this until
  // the engine has their messages; all below is called by the holder.
  [[nodiscard]] std::unique_lock<std::mutex> serialise() { return std::unique_lock(mutex_); }

  // Throws std::logic_error unless `number` is the one to be taken next, ContextLost.
  void require_next(Direction direction, std::uint32_t number);
  // Takes the next `count` numbers and calls `body(first)`, which hands their messages to the engine.
  // Throws CounterExhausted, with nothing taken. Whatever `body` throws, the two sides do not count
  // alike any more: the context is lost, and what comes out is ContextLost.
  void in_step(Direction direction, std::uint32_t count,
               const std::function<void(std::uint32_t first)>& body);

  // H2D: whether the message that had the slot of message `number` before has left it.
  bool slot_is_free(std::uint32_t number);
  void wait_for_slot(std::uint32_t number);
  // The engine has the message, as `command`; the modelled one will have read it at `free_at`.
  void slot_used(std::uint32_t number, Sequence command, Nanoseconds free_at);

 private:
  // Who used a bounce slot last, and when the modelled engine is done with it.
  struct SlotUse {
    Sequence command = 0;
    Nanoseconds free_at = 0;
  };

  const std::unique_ptr<SecureChannel> host_side_;
  CopyEngine& engine_;
  Clock& clock_;
  BounceRing h2d_ring_, d2h_ring_;
  std::mutex mutex_;
  std::vector<SlotUse> slot_uses_;  // of H2D
};

}  // namespace pipellm
