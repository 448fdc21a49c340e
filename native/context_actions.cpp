// What a runtime's decisions come to: messages in the order of their numbers, sealed ahead or now.
#include <algorithm>
#include <stdexcept>

#include "context.h"

namespace pipellm {

namespace {

// The chunks of one transfer, prepared by whoever comes first: the thread that sends them in order,
// or the pool. Jobs of the pool may outlive the sending; by then there is nothing left to claim.
class Preparation {
 public:
  Preparation(std::uint32_t count, std::function<void(std::uint32_t)> prepare)
      : prepare_(std::move(prepare)), states_(count) {}

  // Chunks below `limit` have a slot to go to.
  void allow(std::uint32_t limit) { allowed_.store(limit, std::memory_order_release); }

  // Prepares one chunk that nobody has claimed; false if there is none.
  bool help() {
    const std::uint32_t limit = allowed_.load(std::memory_order_acquire);
    for (std::uint32_t i = first_.load(); i < limit; ++i) {
      if (claim(i)) return true;
    }
    return false;
  }

  // Returns when chunk `index`, which is allowed, is prepared.
  void finish(std::uint32_t index) {
    claim(index);
    while (states_[index].load(std::memory_order_acquire) != kDone) {
      if (!help()) states_[index].wait(kClaimed);
    }
    first_.store(index + 1);
  }

 private:
  enum : int { kOpen, kClaimed, kDone };

  bool claim(std::uint32_t index) {
    int open = kOpen;
    if (!states_[index].compare_exchange_strong(open, kClaimed)) return false;
    prepare_(index);
    states_[index].store(kDone, std::memory_order_release);
    states_[index].notify_all();
    return true;
  }

  std::function<void(std::uint32_t)> prepare_;
  std::vector<std::atomic<int>> states_;
  std::atomic<std::uint32_t> allowed_{0};
  std::atomic<std::uint32_t> first_{0};
};

// Sealed messages lie in memory of the runtime's own, which to the engine is ordinary memory whatever
// the program's is: what a profile says of pinned memory contains the kernel's sealing (facts).
constexpr bool kOurMemory = false;

std::size_t length_of(std::uint64_t nbytes, std::uint32_t index) {
  return static_cast<std::size_t>(
      std::min<std::uint64_t>(kMessageBytes, nbytes - std::uint64_t{index} * kMessageBytes));
}

std::uint32_t messages(std::uint64_t nbytes) {
  return static_cast<std::uint32_t>((nbytes + kMessageBytes - 1) / kMessageBytes);
}

}  // namespace

void Context::set_runtime(std::unique_ptr<Runtime> runtime, std::size_t threads,
                          std::size_t arena_messages) {
  nop_stream_ = create_stream();
  pool_ = std::make_unique<Pool>(threads);
  tracker_ = std::make_unique<WriteTracker>();
  seal_ahead_ = std::make_unique<SealAhead>(host_side_->h2d, *pool_, *tracker_,
                                            host_memory_, clock_, counters_, arena_messages);
  receiver_ =
      std::make_unique<Receiver>(host_side_->d2h, *rings_[PIPELLM_D2H], engine_, *pool_);
  runtime_ = std::move(runtime);
}

void Context::copy_by_runtime(Request& request) {
  const Transfer& transfer = request.transfer;
  Ordinal ordinal = 0;
  {
    const std::lock_guard lock(state_mutex_);
    ordinal = ++last_ordinal_;
    requests_.emplace(ordinal, request);
  }
  unsent_.fetch_add(1);
  try {
    runtime_->request(ordinal, transfer);
  } catch (...) {
    const std::lock_guard lock(state_mutex_);
    const auto found = requests_.find(ordinal);
    if (found != requests_.end() && !found->second.sent) {
      requests_.erase(found);
      unsent_.fetch_sub(1);
    } else {
      request.release = nullptr;  // on its way; its token is held already
      requests_.erase(ordinal);
    }
    throw;
  }
  if (!transfer.blocking()) return;

  {
    const std::lock_guard lock(state_mutex_);
    const auto found = requests_.find(ordinal);
    if (found == requests_.end()) throw std::logic_error("a blocking copy was lost");
    if (!found->second.sent) throw std::logic_error("the runtime left a blocking copy unsent");
    request = found->second;
    requests_.erase(found);
  }
  // An asynchronous copy from pageable memory returns once its source was read.
  if (transfer.asynchronous && transfer.direction == PIPELLM_H2D) return;
  clock_.wait_until(request.end);
  await(request.command, request.receipt);
}

Context::Request& Context::unsent(Ordinal ordinal) {
  const std::lock_guard lock(state_mutex_);
  const auto found = requests_.find(ordinal);
  if (found == requests_.end() || found->second.sent) {
    throw std::logic_error("copy " + std::to_string(ordinal) + " is not waiting to be sent");
  }
  return found->second;  // stays where it is: only its own copy() erases it, after it was sent
}

void Context::sent(Ordinal ordinal, Request& request) {
  hold(request);
  const std::lock_guard lock(state_mutex_);
  request.sent = true;
  if (!request.transfer.blocking()) requests_.erase(ordinal);
  unsent_.fetch_sub(1);
}

void Context::send(Ordinal ordinal, std::uint32_t number, std::optional<Speculation> from) {
  Request& request = unsent(ordinal);
  const Transfer& transfer = request.transfer;
  receiver_->wait(receiver_->touching(transfer.host, transfer.device, transfer.nbytes));
  const std::lock_guard serialise(channel_mutex_);
  const std::uint32_t count = messages(transfer.nbytes);
  require_next(number);
  BounceRing& ring = *rings_[PIPELLM_H2D];
  const PathCost& cost = options_.cost.path(PIPELLM_H2D, kOurMemory);
  const Nanoseconds engine_time = cost.engine(transfer.nbytes);
  clock_.wait_until(clock_.now() + cost.toll);

  const auto preparation = std::make_shared<Preparation>(count, [&](std::uint32_t index) {
    BounceSlot& slot = ring[number + index];
    if (from && seal_ahead_->move_to(slot, *from, index)) return;
    host_side_->h2d.seal(number + index,
                         {transfer.host + std::uint64_t{index} * kMessageBytes,
                          length_of(transfer.nbytes, index)},
                         slot.ciphertext, slot.tag);
  });
  std::uint32_t allowed = 0;
  for (std::uint32_t index = 0; index < count; ++index) {
    while (allowed < count && allowed < index + ring.slots()) {
      const SlotUse& use = slot_uses_[PIPELLM_H2D][(number + allowed) % ring.slots()];
      if (allowed == index) {
        wait_for_slot(use);
      } else if (!is_free(use)) {
        break;
      }
      preparation->allow(++allowed);
      // A single thread beside the caller had better go on sealing ahead: to move what is sealed takes
      // hardly longer than to wake it.
      if (allowed - 1 > index && (!from || pool_->threads() > 1)) {
        pool_->submit_urgent([preparation] { preparation->help(); });
      }
    }
    preparation->finish(index);

    // Waking the engine costs the caller more than a chunk takes to copy, so nobody does it for each
    // chunk unless he is going to wait for the whole.
    const bool last = index + 1 == count;
    const bool wake = transfer.blocking() ? count > 1 : last || index % (ring.slots() / 2) == 0;
    const std::size_t length = length_of(transfer.nbytes, index);
    BounceSlot& slot = ring[host_side_->h2d.next()];
    slot.nbytes = static_cast<std::uint32_t>(length);
    request.command = engine_.submit({PIPELLM_H2D,
                                      transfer.device + std::uint64_t{index} * kMessageBytes,
                                      nullptr, &slot, length},
                                     wake);
    request.end = schedule(transfer, clock_.now(), share(engine_time, length, transfer.nbytes),
                           request.command)
                      .end;
    slot_uses_[PIPELLM_H2D][(number + index) % ring.slots()] = {request.command, request.end};
  }
  if (from) seal_ahead_->relinquish(*from);  // nothing of it is left to wipe but what went unused
  sent(ordinal, request);
}

void Context::send_nops(std::uint32_t number, std::uint32_t count) {
  const std::lock_guard serialise(channel_mutex_);
  require_next(number);
  Transfer nothing{};
  nothing.direction = PIPELLM_H2D;
  nothing.stream = nop_stream_;
  const PathCost& cost = options_.cost.path(PIPELLM_H2D, kOurMemory);
  const std::uint8_t zero = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    clock_.wait_until(clock_.now() + cost.toll);
    BounceSlot& slot = (*rings_[PIPELLM_H2D])[number + i];
    SlotUse& use = slot_uses_[PIPELLM_H2D][(number + i) % rings_[PIPELLM_H2D]->slots()];
    wait_for_slot(use);
    host_side_->h2d.seal(host_side_->h2d.next(), {&zero, 1}, slot.ciphertext, slot.tag);
    slot.nbytes = 1;
    const Command command{PIPELLM_H2D, &nop_target_, nullptr, &slot, 1};
    use.command = engine_.submit(command, /*wake=*/true);
    use.free_at = schedule(nothing, clock_.now(), cost.engine(1), use.command).end;
  }
}

void Context::receive(Ordinal ordinal, std::uint32_t number) {
  Request& request = unsent(ordinal);
  const Transfer& transfer = request.transfer;
  const std::lock_guard serialise(channel_mutex_);
  if (number != host_side_->d2h.last() + 1) {
    throw std::logic_error("D2H message " + std::to_string(number) + " is not the next one");
  }
  const PathCost& cost = options_.cost.path(PIPELLM_D2H, kOurMemory);
  clock_.wait_until(clock_.now() + cost.toll);
  for (std::uint32_t i = messages(transfer.nbytes); i-- > 0;) host_side_->d2h.next();
  // Opening writes every page of it: cheaper without the faults of pages that were watched.
  tracker_->expect_writes(transfer.host, transfer.nbytes);
  // What the stream did before has really happened by now: operators run when they are launched.
  request.receipt = receiver_->receive(transfer.host, transfer.device, transfer.nbytes, number);
  {
    const std::lock_guard lock(state_mutex_);
    timeline_.set_receipt(transfer.stream, request.receipt);
    request.end = timeline_
                      .queue_copy(transfer.stream, PIPELLM_D2H, clock_.now(),
                                  cost.engine(transfer.nbytes))
                      .end;
    landing_.emplace_back(request.receipt, ordinal);
  }
  sent(ordinal, request);
}

void Context::send_waiting() {
  std::vector<Ordinal> waiting;
  {
    const std::lock_guard lock(state_mutex_);
    for (const auto& [ordinal, request] : requests_) {
      if (!request.sent) waiting.push_back(ordinal);
    }
  }
  std::sort(waiting.begin(), waiting.end());
  for (const Ordinal ordinal : waiting) {
    if (unsent(ordinal).transfer.direction == PIPELLM_H2D) {
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
  if (seal_ahead_ == nullptr) return;
  seal_ahead_->stop_reading(start, nbytes);
  const std::lock_guard lock(state_mutex_);
  freed_.emplace_back(reinterpret_cast<std::uintptr_t>(start), nbytes);
}

std::vector<std::pair<std::uintptr_t, std::uint64_t>> Context::freed() {
  const std::lock_guard lock(state_mutex_);
  return std::exchange(freed_, {});
}

void Context::stop_threads() {
  engine_.stop_thread();
  if (pool_ != nullptr) pool_->stop();
}

bool Context::is_free(const SlotUse& use) {
  return use.free_at <= clock_.now() && use.command <= engine_.completed();
}

void Context::require_next(std::uint32_t number) const {
  if (number != host_side_->h2d.last() + 1) {
    throw std::logic_error("H2D message " + std::to_string(number) + " is not the next one");
  }
}

}  // namespace pipellm
