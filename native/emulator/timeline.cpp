#include "emulator/timeline.h"

#include <algorithm>

namespace pipellm {

Span EngineTimeline::reserve(Nanoseconds ready, Nanoseconds duration, bool in_order) {
  // Searched from the end, where nearly every copy goes; what ended long ago is forgotten.
  constexpr std::size_t kRemembered = 256;
  std::size_t at = busy_.size();
  Nanoseconds start = busy_.empty() ? ready : std::max(ready, busy_.back().end);
  if (!in_order) {
    for (std::size_t i = busy_.size(); i-- > 0;) {
      if (busy_[i].end <= ready) break;  // nothing before this can reach past `ready`
      const Nanoseconds gap_start = std::max(ready, i > 0 ? busy_[i - 1].end : ready);
      if (gap_start + duration <= busy_[i].start) {
        start = gap_start;
        at = i;
      }
    }
  }
  const Span span{start, start + duration};
  if (at > 0 && busy_[at - 1].end == span.start) {
    busy_[at - 1].end = span.end;
  } else {
    busy_.insert(busy_.begin() + static_cast<std::ptrdiff_t>(at), span);
  }
  if (busy_.size() > kRemembered) busy_.erase(busy_.begin());
  return span;
}

Timeline::State Timeline::state(Stream stream) const {
  const auto found = streams_.find(stream);
  return found == streams_.end() ? State{} : found->second;
}

Nanoseconds Timeline::finish_all() const {
  Nanoseconds latest = 0;
  for (const auto& [stream, state] : streams_) latest = std::max(latest, state.finish);
  return latest;
}

Span Timeline::queue(Stream stream, Nanoseconds ready, Nanoseconds duration) {
  State& at = streams_[stream];
  const Nanoseconds start = std::max(ready, at.finish);
  at.finish = start + duration;
  return {start, at.finish};
}

Span Timeline::queue_copy(Stream stream, Direction direction, Nanoseconds ready,
                          Nanoseconds duration) {
  State& at = streams_[stream];
  const Span span = engines_[duplex_ ? direction : 0].reserve(std::max(ready, at.finish), duration,
                                                              /*in_order=*/!duplex_);
  at.finish = span.end;
  return span;
}

void Timeline::hold(Stream stream, Nanoseconds time) {
  State& at = streams_[stream];
  at.finish = std::max(at.finish, time);
}

void Timeline::put(Stream stream, Step step) {
  if (waits(stream) || !step()) {
    waiting_[stream].push_back(std::move(step));
  } else {
    advance();  // others may have waited for it
  }
}

std::vector<Stream> Timeline::waiting() const {
  std::vector<Stream> streams;
  for (const auto& [stream, steps] : waiting_) streams.push_back(stream);
  return streams;
}

void Timeline::advance() {
  for (bool again = !waiting_.empty(); again;) {
    again = false;
    for (auto at = waiting_.begin(); at != waiting_.end();) {
      std::deque<Step>& steps = at->second;
      while (!steps.empty() && steps.front()()) {
        steps.pop_front();
        again = true;
      }
      at = steps.empty() ? waiting_.erase(at) : std::next(at);
    }
  }
}

void Timeline::set_command(Stream stream, Sequence sequence) {
  State& at = streams_[stream];
  at.command = std::max(at.command, sequence);
}

}  // namespace pipellm
