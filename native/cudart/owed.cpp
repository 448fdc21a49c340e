#include "cudart/owed.h"

#include <algorithm>

namespace pipellm::cudart {

namespace {

void drop_arrived(Arrivals& arrivals) {
  std::erase_if(arrivals, [](const auto& arrival) { return arrival->arrived; });
}

}  // namespace

void Owed::add(Lane lane, const std::shared_ptr<Arrival>& arrival) {
  const std::lock_guard lock(mutex_);
  arrival->after = locked_of(lane);
  Set& set = streams_[lane.stream];
  set.blocking = lane.blocking;
  drop_arrived(set.arrivals);
  set.arrivals.push_back(arrival);
  all_.push_back(arrival);
  pending_.fetch_add(1, std::memory_order_release);
}

void Owed::arrive(Arrival& arrival, Error error) {
  {
    const std::lock_guard lock(mutex_);
    arrival.arrived = true;
    arrival.after.clear();  // a chain of them would be freed by recursion
    drop_arrived(all_);
    if (error != kSuccess) error_.store(error);
    if (pending_.fetch_sub(1, std::memory_order_release) == 1) {
      streams_.clear();
      events_.clear();
    }
  }
  changed_.notify_all();
}

void Owed::record(Event event, Lane lane) {
  const std::lock_guard lock(mutex_);
  events_[event] = locked_of(lane);
}

void Owed::wait_event(Lane lane, Event event) {
  const std::lock_guard lock(mutex_);
  const auto found = events_.find(event);
  if (found == events_.end()) return;
  Set& set = streams_[lane.stream];
  set.blocking = lane.blocking;
  merge(set.arrivals, found->second);
}

void Owed::forget(Event event) {
  const std::lock_guard lock(mutex_);
  events_.erase(event);
}

Arrivals Owed::of(Lane lane) {
  const std::lock_guard lock(mutex_);
  return locked_of(lane);
}

Arrivals Owed::of(Event event) {
  const std::lock_guard lock(mutex_);
  const auto found = events_.find(event);
  if (found == events_.end()) return {};
  drop_arrived(found->second);
  return found->second;
}

Arrivals Owed::all() {
  const std::lock_guard lock(mutex_);
  return all_;
}

Arrivals Owed::locked_of(Lane lane) {
  Arrivals owed;
  for (auto& [stream, set] : streams_) {
    if (stream != lane.stream && !(lane.blocking && set.blocking)) continue;
    drop_arrived(set.arrivals);
    merge(owed, set.arrivals);
  }
  return owed;
}

void Owed::merge(Arrivals& into, const Arrivals& from) {
  for (const auto& arrival : from) {
    if (arrival->arrived) continue;
    if (std::find(into.begin(), into.end(), arrival) == into.end()) into.push_back(arrival);
  }
}

void Owed::keep_overlapping(Arrivals& arrivals, const void* memory, std::size_t nbytes) {
  std::erase_if(arrivals,
                [&](const auto& arrival) { return !arrival->overlaps(memory, nbytes); });
}

bool Owed::arrived(const Arrival& arrival) {
  const std::lock_guard lock(mutex_);
  return arrival.arrived;
}

void Owed::wait(const Arrivals& arrivals) {
  std::unique_lock lock(mutex_);
  for (const auto& arrival : arrivals) changed_.wait(lock, [&] { return arrival->arrived; });
}

}  // namespace pipellm::cudart
