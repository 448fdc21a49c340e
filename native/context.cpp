#include "context.h"

#include <algorithm>


namespace pipellm {

namespace {

// Enough for both sides to work at the same time, small enough to stay in a CPU's cache.
constexpr std::size_t kBounceSlots = 16;

}  // namespace

Context::Parties Context::shake_hands(const DeviceOptions& options) {
  if (!options.confidential) return {};
  const MasterSecret master;
  // The host seals through libcrypto, as NVIDIA's driver does.
  return {std::make_unique<SecureChannel>(Engine::kOpenssl, master.view()),
          std::make_unique<SecureChannel>(options.device_engine, master.view())};
}

Context::Context(const DeviceOptions& options, Clock& clock, const PinnedMemory& pinned,
                 Counters& counters)
    : Context(options, clock, pinned, counters, shake_hands(options)) {}

Context::Context(const DeviceOptions& options, Clock& clock, const PinnedMemory& pinned,
                 Counters& counters, Parties parties)
    : options_(options),
      clock_(clock),
      pinned_(pinned),
      counters_(counters),
      memory_(options.memory_bytes),
      host_side_(std::move(parties.host)),
      engine_(clock, counters, std::move(parties.device)),
      timeline_(options.cost.duplex) {
  if (!options_.confidential) return;
  for (const Direction direction : {PIPELLM_H2D, PIPELLM_D2H}) {
    rings_[direction] = std::make_unique<BounceRing>(kBounceSlots);
    slot_uses_[direction].resize(kBounceSlots);
  }
}

Context::~Context() = default;

int Context::bounce_file_descriptor(Direction direction) const {
  return rings_[direction] == nullptr ? -1 : rings_[direction]->file_descriptor();
}

void Context::skip_to(Direction direction, std::uint32_t last) {
  const std::lock_guard serialise(channel_mutex_);
  (direction == PIPELLM_H2D ? host_side_->h2d : host_side_->d2h).skip_to(last);
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
  Nanoseconds finish = 0;
  Sequence command = 0;
  {
    const std::lock_guard lock(state_mutex_);
    finish = timeline_.finish(stream);
    command = timeline_.command(stream);
  }
  clock_.wait_until(finish);
  engine_.wait(command);
  reap();
}

void Context::synchronize() {
  Nanoseconds finish = 0;
  {
    const std::lock_guard lock(state_mutex_);
    finish = timeline_.finish_all();
  }
  const Sequence command = engine_.submitted();
  clock_.wait_until(finish);
  engine_.wait(command);
  reap();
}

bool Context::finished(Stream stream) {
  Sequence command = 0;
  {
    const std::lock_guard lock(state_mutex_);
    if (timeline_.finish(stream) > clock_.now()) return false;
    command = timeline_.command(stream);
  }
  engine_.wait(command);  // the device says it is done, so the bytes must be there
  return true;
}

void Context::launch(Stream stream) {
  const Nanoseconds start = clock_.now();
  Sequence command = 0;
  {
    const std::lock_guard lock(state_mutex_);
    command = timeline_.command(stream);
  }
  engine_.wait(command);
  if (holding_.load(std::memory_order_relaxed)) reap();
  if (options_.cost.launch > 0) clock_.wait_until(start + options_.cost.launch);
}

void Context::busy(Stream stream, Nanoseconds duration) {
  const Nanoseconds start = clock_.now() + options_.cost.launch;
  {
    const std::lock_guard lock(state_mutex_);
    timeline_.queue(stream, start, duration);
  }
  clock_.wait_until(start);
}

void Context::record(Event& event, Stream stream) {
  const std::lock_guard lock(state_mutex_);
  event.time = std::max(clock_.now(), timeline_.finish(stream));
  event.command = timeline_.command(stream);
  event.recorded = true;
}

bool Context::finished(const Event& event) {
  Sequence command = 0;
  {
    const std::lock_guard lock(state_mutex_);
    if (event.time > clock_.now()) return false;
    command = event.command;
  }
  engine_.wait(command);
  return true;
}

void Context::synchronize(const Event& event) {
  Nanoseconds time = 0;
  Sequence command = 0;
  {
    const std::lock_guard lock(state_mutex_);
    time = event.time;
    command = event.command;
  }
  clock_.wait_until(time);
  engine_.wait(command);
  reap();
}

void Context::wait_event(Stream stream, const Event& event) {
  const std::lock_guard lock(state_mutex_);
  timeline_.hold(stream, event.time);
  timeline_.set_command(stream, event.command);
}

void Context::await_bytes(const Event& event) {
  Sequence command = 0;
  {
    const std::lock_guard lock(state_mutex_);
    command = event.command;
  }
  engine_.wait(command);
}

void Context::wait_until(Stream stream, Nanoseconds time) {
  const std::lock_guard lock(state_mutex_);
  timeline_.hold(stream, time);
}

void Context::reap() {
  std::deque<HeldToken> done;
  {
    const Sequence completed = engine_.completed();
    const std::lock_guard lock(state_mutex_);
    for (auto held = held_.begin(); held != held_.end();) {
      if (held->until <= completed) {
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
