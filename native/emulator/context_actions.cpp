// What a runtime's decisions come to: messages in the order of their numbers, sealed ahead or now.
#include <algorithm>
#include <stdexcept>

#include "emulator/context.h"
#include "pipelined/preparation.h"

namespace pipellm {

namespace {

// Sealed messages lie in memory of the runtime's own, which to the engine is ordinary memory whatever
// the program's is: what a profile says of pinned memory contains the kernel's sealing (facts).
constexpr bool kOurMemory = false;

// So many ranges of freed memory are kept apart until a planner asks.
constexpr std::size_t kFreedRanges = 1024;

}  // namespace

class Context::Sending {
 public:
  Sending(Context& context, Ordinal ordinal) : context_(context), ordinal_(ordinal) {
    const std::lock_guard lock(context_.state_mutex_);
    const auto found = context_.requests_.find(ordinal);
    if (found == context_.requests_.end() || found->second->state != Request::State::kWaiting) {
      context_.engine_.wait(0);  // one that waited has failed with the context
      throw std::logic_error("copy " + std::to_string(ordinal) + " is not waiting to be sent");
    }
    request_ = found->second;
    request_->state = Request::State::kSending;
  }

  ~Sending() {
    const bool lost = !sent_ && context_.engine_.lost();
    const std::lock_guard lock(context_.state_mutex_);
    if (sent_ || lost) {
      request_->state = sent_ ? Request::State::kSent : Request::State::kFailed;
      context_.hold_locked(*request_);
      if (!request_->transfer.blocking()) context_.requests_.erase(ordinal_);
      context_.unsent_.fetch_sub(1);
    } else {
      request_->state = Request::State::kWaiting;
    }
    context_.request_changed_.notify_all();
  }

  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;

  Request* operator->() const { return request_.get(); }
  void sent() { sent_ = true; }

 private:
  Context& context_;
  const Ordinal ordinal_;
  std::shared_ptr<Request> request_;
  bool sent_ = false;
};

void Context::set_runtime(std::unique_ptr<Runtime> runtime, std::size_t threads,
                          std::size_t arena_messages) {
  nop_stream_ = create_stream();
  pool_ = std::make_unique<Pool>(threads);
  tracker_ = std::make_unique<WriteTracker>();
  seal_ahead_ = std::make_unique<SealAhead>(host_side_->h2d, *pool_, *tracker_,
                                            host_memory_, clock_, counters_, arena_messages);
  receiver_ =
      std::make_unique<Receiver>(host_side_->d2h, *rings_[kD2h], engine_, *pool_);
  runtime_ = std::move(runtime);
}

void Context::copy_by_runtime(Request& call) {
  const auto request = std::make_shared<Request>(call);
  const Transfer& transfer = request->transfer;
  Ordinal ordinal = 0;
  {
    const std::lock_guard lock(state_mutex_);
    ordinal = ++last_ordinal_;
    requests_.emplace(ordinal, request);
    call.release = nullptr;  // the token is the request's from now on
    unsent_.fetch_add(1);
  }
  try {
    runtime_->request(ordinal, transfer);
    if (!transfer.blocking()) return;

    std::unique_lock lock(state_mutex_);
    request_changed_.wait(lock, [&] { return request->state != Request::State::kSending; });
    if (request->state == Request::State::kWaiting) {
      throw std::logic_error("the runtime left a blocking copy unsent");
    }
    requests_.erase(ordinal);
  } catch (...) {
    withdraw(ordinal, *request);
    throw;
  }
  // An asynchronous copy from pageable memory returns once its source was read.
  if (transfer.asynchronous && transfer.direction == kH2d) return;
  clock_.wait_until(request->end);
  await(request->command, request->receipt);
}

// A copy whose call fails, for whatever reason. The program may take its memory back at once, unless
// it was asynchronous and is on its way: then it has a token, or waits for its stream.
void Context::withdraw(Ordinal ordinal, Request& request) {
  {
    std::unique_lock lock(state_mutex_);
    request_changed_.wait(lock, [&] { return request.state != Request::State::kSending; });
    requests_.erase(ordinal);
    if (request.state == Request::State::kWaiting) {
      request.state = Request::State::kFailed;
      hold_locked(request);
      unsent_.fetch_sub(1);
    }
  }
  if (request.state != Request::State::kSent || !request.transfer.blocking()) return;
  try {
    await(request.command, request.receipt);
  } catch (const ContextLost&) {
  }
}

void Context::send(Ordinal ordinal, std::uint32_t number, std::optional<Speculation> from) {
  Sending sending(*this, ordinal);
  const Transfer& transfer = sending->transfer;
  receiver_->wait(receiver_->touching(transfer.host, transfer.device, transfer.nbytes));
  const std::lock_guard serialise(channel_mutex_);
  Endpoint& endpoint = host_side_->h2d;
  require_next(endpoint, number);
  BounceRing& ring = *rings_[kH2d];
  const PathCost& cost = options_.cost.path(kH2d, kOurMemory);
  const Nanoseconds engine_time = cost.engine(transfer.nbytes);
  clock_.wait_until(clock_.now() + cost.toll);

  const std::uint32_t count = messages_of(transfer.nbytes);
  in_step(endpoint, count, [&](std::uint32_t first) {
    const auto preparation = std::make_shared<Preparation>(
        endpoint, ring, *seal_ahead_, transfer.host, transfer.nbytes, first, from);
    const CancelAtEnd cancel(*preparation);
    std::uint32_t allowed = 0;
    for (std::uint32_t index = 0; index < count; ++index) {
      while (allowed < count && allowed < index + ring.slots()) {
        const SlotUse& use = slot_uses_[kH2d][(first + allowed) % ring.slots()];
        if (allowed == index) {
          wait_for_slot(use);
        } else if (!is_free(use)) {
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
      sending->command = engine_.submit({kH2d,
                                         transfer.device + std::uint64_t{index} * kMessageBytes,
                                         nullptr, &slot, length},
                                        wake);
      sending->end = schedule(transfer, clock_.now(), share(engine_time, length, transfer.nbytes),
                              sending->command)
                         .end;
      slot_uses_[kH2d][(first + index) % ring.slots()] = {sending->command, sending->end};
    }
  });
  if (from) seal_ahead_->relinquish(*from);  // nothing of it is left to wipe but what went unused
  sending.sent();
}

void Context::send_nops(std::uint32_t number, std::uint32_t count) {
  const std::lock_guard serialise(channel_mutex_);
  Endpoint& endpoint = host_side_->h2d;
  require_next(endpoint, number);
  Transfer nothing{};
  nothing.direction = kH2d;
  nothing.stream = nop_stream_;
  const PathCost& cost = options_.cost.path(kH2d, kOurMemory);
  const std::uint8_t zero = 0;
  in_step(endpoint, count, [&](std::uint32_t first) {
    for (std::uint32_t i = 0; i < count; ++i) {
      clock_.wait_until(clock_.now() + cost.toll);
      BounceSlot& slot = (*rings_[kH2d])[first + i];
      SlotUse& use = slot_uses_[kH2d][(first + i) % rings_[kH2d]->slots()];
      wait_for_slot(use);
      endpoint.seal(first + i, {&zero, 1}, slot.ciphertext, slot.tag);
      slot.nbytes = 1;
      const Command command{kH2d, &nop_target_, nullptr, &slot, 1};
      use.command = engine_.submit(command, /*wake=*/true);
      use.free_at = schedule(nothing, clock_.now(), cost.engine(1), use.command).end;
    }
  });
}

void Context::receive(Ordinal ordinal, std::uint32_t number) {
  Sending sending(*this, ordinal);
  const Transfer& transfer = sending->transfer;
  const std::lock_guard serialise(channel_mutex_);
  Endpoint& endpoint = host_side_->d2h;
  require_next(endpoint, number);
  const PathCost& cost = options_.cost.path(kD2h, kOurMemory);
  clock_.wait_until(clock_.now() + cost.toll);
  in_step(endpoint, messages_of(transfer.nbytes), [&](std::uint32_t first) {
    // Opening writes every page of it: cheaper without the faults of pages that were watched.
    tracker_->expect_writes(transfer.host, transfer.nbytes);
    // What the stream did before has really happened by now: operators run when they are launched.
    sending->receipt =
        receiver_->receive(transfer.host, transfer.device, transfer.nbytes, first);
    const std::lock_guard lock(state_mutex_);
    timeline_.set_receipt(transfer.stream, sending->receipt);
    sending->end = timeline_
                       .queue_copy(transfer.stream, kD2h, clock_.now(),
                                   cost.engine(transfer.nbytes))
                       .end;
    landing_.emplace_back(sending->receipt, ordinal);
  });
  sending.sent();
}

void Context::send_waiting() {
  std::vector<std::pair<Ordinal, Direction>> waiting;
  {
    const std::lock_guard lock(state_mutex_);
    for (const auto& [ordinal, request] : requests_) {
      if (request->state != Request::State::kWaiting) continue;
      waiting.emplace_back(ordinal, request->transfer.direction);
    }
  }
  std::sort(waiting.begin(), waiting.end());
  for (const auto& [ordinal, direction] : waiting) {
    if (direction == kH2d) {
      send(ordinal, host_side_->h2d.last() + 1, std::nullopt);
    } else {
      receive(ordinal, host_side_->d2h.last() + 1);
    }
  }
}

std::vector<Ordinal> Context::landed() {
  const Receipt completed = receiver_->completed();
  std::vector<Ordinal> ordinals;
  const std::lock_guard lock(state_mutex_);
  while (!landing_.empty() && landing_.front().first <= completed) {
    ordinals.push_back(landing_.front().second);
    landing_.pop_front();
  }
  return ordinals;
}

void Context::stop_reading(const void* start, std::uint64_t nbytes) {
  if (seal_ahead_ == nullptr || nbytes == 0) return;
  seal_ahead_->stop_reading(start, nbytes);
  auto begin = reinterpret_cast<std::uintptr_t>(start);
  auto end = begin + nbytes;
  const std::lock_guard lock(state_mutex_);
  auto at = freed_.upper_bound(end);
  while (at != freed_.begin()) {
    const auto before = std::prev(at);
    if (before->second < begin) break;
    begin = std::min(begin, before->first);
    end = std::max(end, before->second);
    at = freed_.erase(before);
  }
  freed_.emplace(begin, end);
  if (freed_.size() > kFreedRanges) {
    const std::uintptr_t first = freed_.begin()->first, last = freed_.rbegin()->second;
    freed_.clear();
    freed_.emplace(first, last);
  }
}

std::vector<std::pair<std::uintptr_t, std::uint64_t>> Context::freed() {
  std::vector<std::pair<std::uintptr_t, std::uint64_t>> ranges;
  const std::lock_guard lock(state_mutex_);
  for (const auto& [begin, end] : freed_) ranges.emplace_back(begin, end - begin);
  freed_.clear();
  return ranges;
}

void Context::stop_threads() {
  engine_.stop_thread();
  if (pool_ != nullptr) pool_->stop();
}

bool Context::is_free(const SlotUse& use) {
  return use.free_at <= clock_.now() && use.command <= engine_.completed();
}

void Context::require_next(const Endpoint& endpoint, std::uint32_t number) {
  engine_.wait(0);  // one that failed with the context has left the count where it was
  if (number == endpoint.last() + 1) return;
  throw std::logic_error(std::string(direction_name(endpoint.direction())) + " message " +
                         std::to_string(number) + " is not the next one");
}

}  // namespace pipellm
