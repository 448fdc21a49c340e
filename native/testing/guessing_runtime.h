// A runtime as the planner is one: it seals ahead what was asked for last, is often wrong about it,
// and lets some swap-ins wait until something depends on them.
#pragma once

#include <deque>
#include <mutex>
#include <optional>

#include "pipelined/pipeline.h"

namespace pipellm::stress {

class GuessingRuntime final : public Runtime {
 public:
  explicit GuessingRuntime(Pipeline& pipeline) : pipeline_(pipeline) {}

  void request(Ordinal ordinal, const Transfer& transfer) override {
    const std::lock_guard lock(mutex_);
    ++requests_;
    if (transfer.direction == kD2h) {
      send_waiting();
      pipeline_.receive(ordinal, received_ + 1);
      received_ += messages_of(transfer.nbytes);
      return;
    }
    pipeline_.seal_ahead().news();
    if (!transfer.blocking() && requests_ % 3 == 0) {
      waiting_.push_back({ordinal, transfer});
      return;
    }
    send_waiting();
    send(ordinal, transfer);
  }

  void order(std::optional<Stream>) override {
    const std::lock_guard lock(mutex_);
    send_waiting();
  }

  void synchronize(std::optional<Stream>) override {
    const std::lock_guard lock(mutex_);
    send_waiting();
    pipeline_.landed();
  }

 private:
  struct Waiting {
    Ordinal ordinal;
    Transfer transfer;
  };

  void send_waiting() {
    while (!waiting_.empty()) {
      const Waiting first = waiting_.front();
      waiting_.pop_front();
      send(first.ordinal, first.transfer);
    }
  }

  void send(Ordinal ordinal, const Transfer& transfer) {
    const std::uint32_t count = messages_of(transfer.nbytes);
    const bool foreseen = guess_ != 0 && address_ == transfer.host && nbytes_ == transfer.nbytes &&
                          number_ == sent_ + 1 && pipeline_.seal_ahead().unchanged(guess_);
    pipeline_.send(ordinal, sent_ + 1, foreseen ? std::optional(guess_) : std::nullopt);
    if (guess_ != 0 && !foreseen) pipeline_.seal_ahead().relinquish(guess_);
    sent_ += count;
    pipeline_.send_nops(sent_ + 1, 1);
    ++sent_;
    guess_ = ++last_guess_;
    address_ = transfer.host;
    nbytes_ = transfer.nbytes;
    number_ = sent_ + 1;
    pipeline_.seal_ahead().speculate(guess_, transfer.host, transfer.nbytes, 0, count, number_);
  }

  Pipeline& pipeline_;
  std::mutex mutex_;  // guards all below
  std::uint64_t requests_ = 0;
  std::deque<Waiting> waiting_;
  std::uint32_t sent_ = 0, received_ = 0, number_ = 0;
  Speculation guess_ = 0, last_guess_ = 0;
  const std::uint8_t* address_ = nullptr;
  std::uint64_t nbytes_ = 0;
};

}  // namespace pipellm::stress
