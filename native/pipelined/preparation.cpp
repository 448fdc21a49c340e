#include "pipelined/preparation.h"

namespace pipellm {

Preparation::Preparation(Endpoint& endpoint, BounceRing& ring, SealAhead& seal_ahead,
                         const std::uint8_t* plaintext, std::uint64_t nbytes, std::uint32_t number,
                         std::optional<Speculation> from)
    : endpoint_(endpoint),
      ring_(ring),
      seal_ahead_(seal_ahead),
      plaintext_(plaintext),
      nbytes_(nbytes),
      number_(number),
      from_(from),
      states_(messages_of(nbytes)) {}

bool Preparation::help() {
  const std::uint32_t limit = allowed_.load(std::memory_order_acquire);
  for (std::uint32_t i = first_.load(); i < limit; ++i) {
    if (claim(i)) return true;
  }
  return false;
}

void Preparation::finish(std::uint32_t index) {
  claim(index);
  for (;;) {
    const int state = states_[index].load(std::memory_order_acquire);
    if (state == kFailed) {
      const std::lock_guard lock(mutex_);
      std::rethrow_exception(failure_);
    }
    if (state == kDone) break;
    if (!help()) states_[index].wait(kClaimed);
  }
  first_.store(index + 1);
}

void Preparation::cancel() noexcept {
  for (std::atomic<int>& state : states_) {
    int open = kOpen;
    if (!state.compare_exchange_strong(open, kCancelled)) state.wait(kClaimed);
  }
}

bool Preparation::claim(std::uint32_t index) {
  int open = kOpen;
  if (!states_[index].compare_exchange_strong(open, kClaimed)) return false;
  int outcome = kDone;
  try {
    prepare(index);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    outcome = kFailed;
  }
  states_[index].store(outcome, std::memory_order_release);
  states_[index].notify_all();
  return true;
}

void Preparation::prepare(std::uint32_t index) {
  BounceSlot& slot = ring_[number_ + index];
  if (from_) {
    const auto [moved, became] = seal_ahead_.move_to(slot, *from_, index);
    for (Became worst = became_; worst < became && !became_.compare_exchange_weak(worst, became);) {
    }
    if (moved) return;
  }
  endpoint_.seal(number_ + index,
                 {plaintext_ + std::uint64_t{index} * kMessageBytes,
                  length_of_message(nbytes_, index)},
                 slot.ciphertext, slot.tag);
}

}  // namespace pipellm
