#include "emulator/context.h"

#include <algorithm>


namespace pipellm {

namespace {

// Enough for both sides to work at the same time, small enough to stay in a CPU's cache.
constexpr std::size_t kBounceSlots = 16;

}  // namespace

Context::Parties Context::shake_hands(const DeviceOptions& options) {
  if (!options.confidential) return {};
  const MasterSecret master;
  return {std::make_unique<SecureChannel>(options.host_engine, master.view()),
          std::make_unique<SecureChannel>(options.device_engine, master.view())};
}

Context::Context(const DeviceOptions& options, Clock& clock, const HostMemory& host_memory,
                 Counters& counters)
    : Context(options, clock, host_memory, counters, shake_hands(options)) {}

Context::Context(const DeviceOptions& options, Clock& clock, const HostMemory& host_memory,
                 Counters& counters, Parties parties)
    : options_(options),
      clock_(clock),
      host_memory_(host_memory),
      counters_(counters),
      memory_(options.memory_bytes),
      host_side_(std::move(parties.host)),
      engine_(clock, counters, std::move(parties.device)),
      timeline_(options.cost.duplex) {
  if (!options_.confidential) return;
  for (const Direction direction : {kH2d, kD2h}) {
    rings_[direction] = std::make_unique<BounceRing>(kBounceSlots);
    slot_uses_[direction].resize(kBounceSlots);
  }
}

Context::~Context() {
  engine_.discard();  // its commands refer to what is destroyed before it
}

int Context::bounce_file_descriptor(Direction direction) const {
  return rings_[direction] == nullptr ? -1 : rings_[direction]->file_descriptor();
}

void Context::skip_to(Direction direction, std::uint32_t last) {
  const std::lock_guard serialise(channel_mutex_);
  (direction == kH2d ? host_side_->h2d : host_side_->d2h).skip_to(last);
}

Stream Context::create_stream() {
  const std::lock_guard lock(state_mutex_);
  return timeline_.create_stream();
}

bool Context::known(Stream stream) {
  const std::lock_guard lock(state_mutex_);
  return timeline_.known(stream);
}

void Context::synchronize(Stream stream) {
  flush(stream);
  const Mark due = reach(stream);
  clock_.wait_until(due.time);
  await(due.command, due.receipt);
  reap();
}

void Context::synchronize() {
  flush(std::nullopt);
  std::vector<Stream> waiting;
  {
    const std::lock_guard lock(state_mutex_);
    waiting = timeline_.waiting();
  }
  for (const Stream stream : waiting) reach(stream);
  Nanoseconds finish = 0;
  {
    const std::lock_guard lock(state_mutex_);
    finish = timeline_.finish_all();
  }
  clock_.wait_until(finish);
  await(engine_.submitted(), receiver_ == nullptr ? 0 : receiver_->last());
  reap();
}

void Context::await(Sequence command, Receipt receipt) {
  try {
    engine_.wait(command);
    if (receipt != 0) receiver_->wait(receipt);
  } catch (...) {
    settle_if_lost();
    throw;
  }
}

void Context::in_step(Endpoint& endpoint, std::uint32_t count,
                      const std::function<void(std::uint32_t)>& body) {
  engine_.wait(0);  // for a lost context nobody reads the program's memory any more
  const std::uint32_t first = endpoint.take(count);
  try {
    body(first);
  } catch (const ContextLost&) {
    throw;
  } catch (const std::exception& error) {
    engine_.lose(std::string("a copy failed half-way: ") + error.what() +
                 "; the context is lost, restart the program");
    engine_.wait(0);
  }
}

void Context::order(std::optional<Stream> stream) {
  // Nothing to put in order, nearly always; and launches are many.
  if (unsent_.load(std::memory_order_acquire) == 0) return;
  try {
    runtime_->order(stream);
  } catch (...) {
    settle_if_lost();
    throw;
  }
}

void Context::flush(std::optional<Stream> stream) {
  if (runtime_ == nullptr) return;
  try {
    runtime_->synchronize(stream);
  } catch (...) {
    settle_if_lost();
    throw;
  }
}

void Context::settle_if_lost() {
  if (!engine_.lost()) return;
  // Who was sending has stopped when the channel is free; who comes later finds the context lost.
  { const std::lock_guard serialise(channel_mutex_); }
  engine_.settle();
  if (receiver_ != nullptr) receiver_->abandon();
  {
    const std::lock_guard lock(state_mutex_);
    for (auto at = requests_.begin(); at != requests_.end();) {
      Request& request = *at->second;
      // A blocking one belongs to the thread that waits for it.
      if (request.state != Request::State::kWaiting || request.transfer.blocking()) {
        ++at;
        continue;
      }
      request.state = Request::State::kFailed;
      hold_locked(request);
      at = requests_.erase(at);
      unsent_.fetch_sub(1);
    }
  }
  reap();
}

bool Context::finished(Stream stream) {
  order(stream);
  Timeline::State due;
  bool waits = false;
  {
    const std::lock_guard lock(state_mutex_);
    due = timeline_.state(stream);
    waits = timeline_.waits(stream);
  }
  if (waits) await(0, 0);  // a lost context says so
  if (waits || due.finish > clock_.now()) return false;
  await(due.command, due.receipt);  // the device says it is done, so the bytes must be there
  return true;
}

void Context::launch(Stream stream) {
  order(stream);
  const Nanoseconds start = clock_.now();
  const Mark due = reach(stream);
  await(due.command, due.receipt);
  if (holding_.load(std::memory_order_relaxed)) reap();
  if (options_.cost.launch > 0) clock_.wait_until(start + options_.cost.launch);
}

void Context::busy(Stream stream, Nanoseconds duration) {
  order(stream);
  const Nanoseconds start = clock_.now() + options_.cost.launch;
  {
    const std::lock_guard lock(state_mutex_);
    timeline_.put(stream, [this, stream, start, duration] {
      timeline_.queue(stream, start, duration);
      return true;
    });
  }
  clock_.wait_until(start);
}

void Context::record(Event& event, Stream stream) {
  order(stream);
  const Nanoseconds now = clock_.now();
  const std::lock_guard lock(state_mutex_);
  event.mark = put_mark(stream, now);
}

bool Context::finished(const Event& event) {
  const std::optional<Nanoseconds> time = time_of(event);
  if (!time) await(0, 0);  // a lost context says so
  if (!time || *time > clock_.now()) return false;
  const Mark due = reach(seen(event));
  await(due.command, due.receipt);
  return true;
}

void Context::synchronize(const Event& event) {
  flush(std::nullopt);
  const Mark due = reach(seen(event));
  clock_.wait_until(due.time);
  await(due.command, due.receipt);
  reap();
}

void Context::wait_event(Stream stream, const Event& event) {
  order(stream);
  const std::lock_guard lock(state_mutex_);
  if (event.mark == nullptr) return;
  timeline_.put(stream, [this, stream, mark = event.mark] {
    if (!mark->reached) return false;
    hold(stream, *mark);
    return true;
  });
}

Nanoseconds Context::await_bytes(const Event& event) {
  const Mark due = reach(seen(event));
  await(due.command, due.receipt);
  return due.time;
}

void Context::wait_until(Stream stream, Nanoseconds time) {
  order(stream);
  const std::lock_guard lock(state_mutex_);
  timeline_.put(stream, [this, stream, time] {
    timeline_.hold(stream, time);
    return true;
  });
}

void Context::freeze() {
  if (pool_ != nullptr) pool_->freeze();
  clock_.pause();
}

void Context::thaw() {
  clock_.resume();
  if (pool_ != nullptr) pool_->thaw();
}

Context::CpuTime Context::cpu_time() const {
  return {pool_ == nullptr ? 0 : pool_->cpu_time(), engine_.cpu_time()};
}

void Context::finish_and_reap() {
  await(engine_.submitted(), receiver_ == nullptr ? 0 : receiver_->last());
  reap();
}

void Context::reap() {
  std::deque<HeldToken> done;
  {
    const Sequence completed = engine_.completed();
    const Receipt received = receiver_ == nullptr ? 0 : receiver_->completed();
    const std::lock_guard lock(state_mutex_);
    for (auto held = held_.begin(); held != held_.end();) {
      if (held->until <= completed && held->receipt <= received) {
        done.push_back(*held);
        held = held_.erase(held);
      } else {
        ++held;
      }
    }
    holding_.store(!held_.empty(), std::memory_order_relaxed);
  }
  // Outside the lock: letting go of a tensor frees its memory, which comes back in here.
  for (const HeldToken& held : done) held.release(held.token);
}

}  // namespace pipellm
