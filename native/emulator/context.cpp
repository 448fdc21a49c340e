#include "emulator/context.h"

#include <algorithm>
#include <utility>

namespace pipellm {

Context::Parties Context::shake_hands(const DeviceOptions& options) {
  if (!options.confidential) return {};
  const MasterSecret master;
  return {std::make_unique<SecureChannel>(options.host_engine, master.view()),
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
      engine_(clock, counters, std::move(parties.device)),
      channel_(parties.host == nullptr
                   ? nullptr
                   : std::make_unique<OpenChannel>(std::move(parties.host), engine_, clock)),
      timeline_(options.cost.duplex) {}

Context::~Context() {
  engine_.discard();  // its commands refer to what is destroyed before it
}

int Context::bounce_file_descriptor(Direction direction) const {
  return channel_ == nullptr ? -1 : channel_->ring(direction).file_descriptor();
}

void Context::skip_to(Direction direction, std::uint32_t last) {
  const auto serialise = channel_->serialise();
  channel_->endpoint(direction).skip_to(last);
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
  const Mark due = reach(stream);
  clock_.wait_until(due.time);
  await(due.command);
  reap();
}

void Context::synchronize() {
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
  await(engine_.submitted());
  reap();
}

void Context::await(Sequence command) {
  try {
    engine_.wait(command);
  } catch (...) {
    settle_if_lost();
    throw;
  }
}

void Context::settle_if_lost() {
  if (!engine_.lost()) return;
  // Who was sending has stopped when the channel is free; who comes later finds the context lost.
  if (channel_ != nullptr) { const auto serialise = channel_->serialise(); }
  engine_.settle();
  reap();
}

bool Context::finished(Stream stream) {
  Timeline::State due;
  bool waits = false;
  {
    const std::lock_guard lock(state_mutex_);
    due = timeline_.state(stream);
    waits = timeline_.waits(stream);
  }
  if (waits) await(0);  // a lost context says so
  if (waits || due.finish > clock_.now()) return false;
  await(due.command);  // the device says it is done, so the bytes must be there
  return true;
}

void Context::launch(Stream stream) {
  const Nanoseconds start = clock_.now();
  await(reach(stream).command);
  if (tokens_.any()) reap();
  if (options_.cost.launch > 0) clock_.wait_until(start + options_.cost.launch);
}

void Context::busy(Stream stream, Nanoseconds duration) {
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
  const Nanoseconds now = clock_.now();
  const std::lock_guard lock(state_mutex_);
  event.mark = put_mark(stream, now);
}

bool Context::finished(const Event& event) {
  const std::optional<Nanoseconds> time = time_of(event);
  if (!time) await(0);  // a lost context says so
  if (!time || *time > clock_.now()) return false;
  await(reach(seen(event)).command);
  return true;
}

void Context::synchronize(const Event& event) {
  const Mark due = reach(seen(event));
  clock_.wait_until(due.time);
  await(due.command);
  reap();
}

void Context::wait_event(Stream stream, const Event& event) {
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
  await(due.command);
  return due.time;
}

void Context::wait_until(Stream stream, Nanoseconds time) {
  const std::lock_guard lock(state_mutex_);
  timeline_.put(stream, [this, stream, time] {
    timeline_.hold(stream, time);
    return true;
  });
}

void Context::reap() { tokens_.let_go({.command = engine_.completed()}); }

void Context::finish_and_reap() {
  await(engine_.submitted());
  reap();
}

Span Context::schedule(Stream stream, Direction direction, Nanoseconds ready, Nanoseconds duration,
                       Sequence command) {
  const std::lock_guard lock(state_mutex_);
  timeline_.set_command(stream, command);
  return timeline_.queue_copy(stream, direction, ready, duration);
}

}  // namespace pipellm
