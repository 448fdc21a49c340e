// What a stream does within device memory, and streams that wait for what has no time yet.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "emulator/context.h"

namespace pipellm {

namespace {

// A lost context is noticed this late by who waits for a value that nobody will write.
constexpr std::chrono::milliseconds kLook{2};

bool is_at_least(std::uint32_t word, std::uint32_t value) {
  return static_cast<std::int32_t>(word - value) >= 0;
}

}  // namespace

std::shared_ptr<const Mark> Context::put_mark(Stream stream, Nanoseconds now) {
  auto mark = std::make_shared<Mark>();
  timeline_.put(stream, [this, stream, now, mark] {
    const Timeline::State at = timeline_.state(stream);
    *mark = {true, std::max(now, at.finish), at.command};
    mark_reached_.notify_all();
    return true;
  });
  return mark;
}

std::shared_ptr<const Mark> Context::seen(const Event& event) {
  const std::lock_guard lock(state_mutex_);
  return event.mark;
}

std::optional<Nanoseconds> Context::time_of(const Event& event) {
  const std::lock_guard lock(state_mutex_);
  if (event.mark == nullptr) return 0;
  return event.mark->reached ? std::optional(event.mark->time) : std::nullopt;
}

Mark Context::reach(const std::shared_ptr<const Mark>& mark) {
  if (mark == nullptr) return {true, 0, 0};
  std::unique_lock lock(state_mutex_);
  while (!mark->reached) {
    mark_reached_.wait_for(lock, kLook);
    if (mark->reached) break;
    lock.unlock();
    await(0);
    lock.lock();
  }
  return *mark;
}

Mark Context::reach(Stream stream) {
  std::shared_ptr<const Mark> mark;
  {
    const std::lock_guard lock(state_mutex_);
    if (!timeline_.waits(stream)) {
      const Timeline::State at = timeline_.state(stream);
      return {true, at.finish, at.command};
    }
    mark = put_mark(stream, 0);
  }
  return reach(mark);
}

void Context::hold(Stream stream, const Mark& mark) {
  timeline_.hold(stream, mark.time);
  timeline_.set_command(stream, mark.command);
}

void Context::put_within(Stream stream, Nanoseconds duration, std::uint64_t nbytes,
                         std::function<void()> within) {
  await(0);  // a lost context does nothing more
  const Nanoseconds issued = clock_.now() + options_.cost.launch;
  {
    const std::lock_guard lock(state_mutex_);
    timeline_.put(stream, [=, this, within = std::move(within)] {
      const Command command{kH2d, nullptr, nullptr, nullptr, nbytes, {}, within};
      timeline_.set_command(stream, engine_.submit(command, /*wake=*/true));
      timeline_.queue(stream, issued, duration);
      return true;
    });
  }
  clock_.wait_until(issued);
}

void Context::copy_on_device(Stream stream, std::vector<PipellmDeviceCopy> copies) {
  Nanoseconds duration = 0;
  std::uint64_t nbytes = 0;
  for (const PipellmDeviceCopy& copy : copies) {
    duration += options_.cost.device_copy(copy.nbytes);
    nbytes += copy.nbytes;
  }
  // They have no order among themselves: the last one first, for nobody to count on another.
  put_within(stream, duration, nbytes, [copies = std::move(copies)] {
    for (auto copy = copies.rbegin(); copy != copies.rend(); ++copy) {
      std::memcpy(copy->destination, copy->source, copy->nbytes);
    }
  });
}

void Context::fill(Stream stream, void* destination, std::uint8_t byte, std::uint64_t nbytes) {
  // Half the traffic of a copy.
  put_within(stream, options_.cost.device_copy(nbytes) / 2, nbytes,
             [=] { std::memset(destination, byte, nbytes); });
}

void Context::write_value(Stream stream, std::uint32_t* word, std::uint32_t value) {
  await(0);
  const Nanoseconds now = clock_.now();
  const std::lock_guard lock(state_mutex_);
  timeline_.put(stream, [=, this] {
    const Command command{kH2d, nullptr, nullptr, nullptr, sizeof(value), {}, [=] {
                            std::atomic_ref<std::uint32_t>(*word).store(value);
                          }};
    timeline_.set_command(stream, engine_.submit(command, /*wake=*/false));
    const Timeline::State at = timeline_.state(stream);
    values_[word] = {value, {true, std::max(now, at.finish), at.command}};
    return true;
  });
}

void Context::wait_value(Stream stream, const std::uint32_t* word, std::uint32_t value) {
  const std::lock_guard lock(state_mutex_);
  timeline_.put(stream, [=, this] {
    const auto written = values_.find(word);
    if (written == values_.end()) {
      auto& memory = *const_cast<std::uint32_t*>(word);
      return is_at_least(std::atomic_ref<std::uint32_t>(memory).load(), value);
    }
    if (!is_at_least(written->second.value, value)) return false;
    hold(stream, written->second.mark);
    return true;
  });
}

void Context::forget_values(const void* start, std::uint64_t nbytes) {
  const auto* first = static_cast<const std::uint32_t*>(start);
  const auto* end = reinterpret_cast<const std::uint32_t*>(
      static_cast<const std::uint8_t*>(start) + nbytes);
  const std::lock_guard lock(state_mutex_);
  values_.erase(values_.lower_bound(first), values_.lower_bound(end));
}

}  // namespace pipellm
