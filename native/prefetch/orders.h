// What the request path and a planner tell each other: plain values, no thread, no clock, no Python.
//
// A planner orders, and is never waited for. It hears of what happened afterwards, in batches, and
// whatever it says or fails to say, copies are right without it. The rules that both follow, and what
// each word means, are in src/pipellm/prefetch/news.py and orders.py.
#pragma once

#include <cstdint>
#include <vector>

namespace pipellm::prefetch {

// Bytes of the host's memory.
struct Range {
  std::uintptr_t start = 0;
  std::uint64_t nbytes = 0;

  std::uintptr_t end() const { return start + nbytes; }
  bool touches(const Range& other) const { return start < other.end() && other.start < end(); }
  bool holds(const Range& other) const { return start <= other.start && other.end() <= end(); }
  const std::uint8_t* data() const { return reinterpret_cast<const std::uint8_t*>(start); }
  bool operator==(const Range&) const = default;
};

inline Range range_of(const void* start, std::uint64_t nbytes) {
  return {reinterpret_cast<std::uintptr_t>(start), nbytes};
}

// Bring these pieces to the prefetch buffer, in one copy over the link, or drop them.
struct Order {
  enum class Kind : std::int64_t { kTransfer, kEvict };
  Kind kind;
  std::vector<Range> pieces;
};

struct News {
  enum class Kind : std::int64_t {
    kHit,
    kStale,
    kMiss,
    kReadBack,
    kSynchronize,
    kTransferred,
    kRefused,
    kDropped,
    kLanded,
    kFreed,
    kRoom,
    kChanged,
  };
  Kind kind;
  Range host{};
  std::int64_t stream = 0;
  std::uint64_t found = 0;  // bytes of a hit that were there
};

}  // namespace pipellm::prefetch
