// What a runtime's decisions come to: messages in the order of their numbers, sealed ahead or now.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "pipelined/pipeline.h"
#include "pipelined/preparation.h"

namespace pipellm {

namespace {

// Sealed messages lie in memory of the runtime's own, which to the engine is ordinary memory whatever
// the program's is: what a profile says of pinned memory contains the kernel's sealing (facts).
constexpr bool kOurMemory = false;

// From here on a message takes longer to prepare than a thread of the pool takes to wake.
constexpr std::uint64_t kWorthAThread = 64 * 1024;

}  // namespace

class Pipeline::Sending {
 public:
  Sending(Pipeline& pipeline, Ordinal ordinal) : pipeline_(pipeline), ordinal_(ordinal) {
    const std::lock_guard lock(pipeline_.mutex_);
    const auto found = pipeline_.requests_.find(ordinal);
    if (found == pipeline_.requests_.end() || found->second->state != Request::State::kWaiting) {
      pipeline_.device_.engine().wait(0);  // one that waited has failed with the context
      throw std::logic_error("copy " + std::to_string(ordinal) + " is not waiting to be sent");
    }
    request_ = found->second;
    request_->state = Request::State::kSending;
  }

  ~Sending() {
    const bool lost = !sent_ && pipeline_.device_.engine().lost();
    const std::lock_guard lock(pipeline_.mutex_);
    if (sent_ || lost) {
      request_->state = sent_ ? Request::State::kSent : Request::State::kFailed;
      pipeline_.hold(*request_);
      if (!request_->transfer.blocking()) pipeline_.requests_.erase(ordinal_);
      pipeline_.unsent_.fetch_sub(1);
    } else {
      request_->state = Request::State::kWaiting;
    }
    pipeline_.request_changed_.notify_all();
  }

  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;

  Request* operator->() const { return request_.get(); }
  void sent() { sent_ = true; }

 private:
  Pipeline& pipeline_;
  const Ordinal ordinal_;
  std::shared_ptr<Request> request_;
  bool sent_ = false;
};

Became Pipeline::send(Ordinal ordinal, std::uint32_t number, std::optional<Speculation> from) {
  Sending sending(*this, ordinal);
  const Transfer& transfer = sending->transfer;
  receiver_->wait(receiver_->touching(transfer.host, transfer.device, transfer.nbytes));
  OpenChannel& channel = device_.channel();
  const auto serialise = channel.serialise();
  channel.require_next(kH2d, number);
  BounceRing& ring = channel.ring(kH2d);
  const PathCost& cost = device_.cost().path(kH2d, kOurMemory);
  const Nanoseconds engine_time = cost.engine(transfer.nbytes);

  const std::uint32_t count = messages_of(transfer.nbytes);
  Became became = Became::kClean;
  channel.in_step(kH2d, count, [&](std::uint32_t first) {
    const auto preparation = std::make_shared<Preparation>(
        channel.endpoint(kH2d), ring, *seal_ahead_, transfer.host, transfer.nbytes, first, from);
    const CancelAtEnd cancel(*preparation);
    std::uint32_t allowed = 0;
    // The first message is prepared while the caller pays the toll.
    if (length_of_message(transfer.nbytes, 0) >= kWorthAThread && channel.slot_is_free(first)) {
      preparation->allow(++allowed);
      pool_->submit_urgent([preparation] { preparation->help(); });
    }
    clock_.wait_until(clock_.now() + cost.toll);
    for (std::uint32_t index = 0; index < count; ++index) {
      while (allowed < count && allowed < index + ring.slots()) {
        if (allowed == index) {
          channel.wait_for_slot(first + index);
        } else if (!channel.slot_is_free(first + allowed)) {
          break;
        }
        preparation->allow(++allowed);
        // A single thread beside the caller had better go on sealing ahead: to move what is sealed
        // takes hardly longer than to wake it.
        if (allowed - 1 > index && (!from || pool_->threads() > 1)) {
          pool_->submit_urgent([preparation] { preparation->help(); });
        }
      }
      preparation->finish(index);

      // Waking the engine costs the caller more than a chunk takes to copy, so nobody does it for each
      // chunk unless he is going to wait for the whole.
      const bool last = index + 1 == count;
      const bool wake = transfer.blocking() ? count > 1 : last || index % (ring.slots() / 2) == 0;
      const std::size_t length = length_of_message(transfer.nbytes, index);
      BounceSlot& slot = ring[first + index];
      slot.nbytes = static_cast<std::uint32_t>(length);
      const Command command{kH2d, transfer.device + std::uint64_t{index} * kMessageBytes, nullptr,
                            &slot, length};
      sending->command = device_.engine().submit(command, wake);
      sending->end = device_
                         .schedule(transfer.stream, kH2d, clock_.now(),
                                   share(engine_time, length, transfer.nbytes), sending->command)
                         .end;
      channel.slot_used(first + index, sending->command, sending->end);
    }
    became = preparation->became();
  });
  if (from) seal_ahead_->relinquish(*from);  // nothing of it is left to wipe but what went unused
  sending.sent();
  return became;
}

void Pipeline::send_nops(std::uint32_t number, std::uint32_t count) {
  OpenChannel& channel = device_.channel();
  const auto serialise = channel.serialise();
  channel.require_next(kH2d, number);
  const PathCost& cost = device_.cost().path(kH2d, kOurMemory);
  const std::uint8_t zero = 0;
  channel.in_step(kH2d, count, [&](std::uint32_t first) {
    for (std::uint32_t index = 0; index < count; ++index) {
      const std::uint32_t nop = first + index;
      clock_.wait_until(clock_.now() + cost.toll);
      channel.wait_for_slot(nop);
      BounceSlot& slot = channel.ring(kH2d)[nop];
      channel.endpoint(kH2d).seal(nop, {&zero, 1}, slot.ciphertext, slot.tag);
      slot.nbytes = 1;
      const Command command{kH2d, &nop_target_, nullptr, &slot, 1};
      const Sequence sequence = device_.engine().submit(command, /*wake=*/true);
      const Span span =
          device_.schedule(nop_stream_, kH2d, clock_.now(), cost.engine(1), sequence);
      channel.slot_used(nop, sequence, span.end);
    }
  });
}

void Pipeline::receive(Ordinal ordinal, std::uint32_t number) {
  Sending sending(*this, ordinal);
  const Transfer& transfer = sending->transfer;
  OpenChannel& channel = device_.channel();
  const auto serialise = channel.serialise();
  channel.require_next(kD2h, number);
  const PathCost& cost = device_.cost().path(kD2h, kOurMemory);
  clock_.wait_until(clock_.now() + cost.toll);
  channel.in_step(kD2h, messages_of(transfer.nbytes), [&](std::uint32_t first) {
    // Opening writes every page of it: cheaper without the faults of pages that were watched.
    tracker_->expect_writes(transfer.host, transfer.nbytes);
    // What the stream did before has really happened by now: operators run when they are launched.
    sending->receipt = receiver_->receive(transfer.host, transfer.device, transfer.nbytes, first);
    sending->end = device_
                       .schedule(transfer.stream, kD2h, clock_.now(), cost.engine(transfer.nbytes),
                                 /*command=*/0)
                       .end;
    inherit(transfer.stream, sending->receipt);
    const std::lock_guard lock(mutex_);
    landing_.emplace_back(sending->receipt, ordinal);
  });
  sending.sent();
}

void Pipeline::send_waiting() {
  std::vector<std::pair<Ordinal, Direction>> waiting;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [ordinal, request] : requests_) {
      if (request->state != Request::State::kWaiting) continue;
      waiting.emplace_back(ordinal, request->transfer.direction);
    }
  }
  std::sort(waiting.begin(), waiting.end());
  for (const auto& [ordinal, direction] : waiting) {
    if (direction == kH2d) {
      send(ordinal, device_.channel().endpoint(kH2d).last() + 1, std::nullopt);
    } else {
      receive(ordinal, device_.channel().endpoint(kD2h).last() + 1);
    }
  }
}

std::vector<Ordinal> Pipeline::landed() {
  const Receipt completed = receiver_->completed();
  std::vector<Ordinal> ordinals;
  const std::lock_guard lock(mutex_);
  while (!landing_.empty() && landing_.front().first <= completed) {
    ordinals.push_back(landing_.front().second);
    landing_.pop_front();
  }
  return ordinals;
}

}  // namespace pipellm
