// Host memory that was freed, until somebody who keeps notes of memory asks what was.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace pipellm {

// Internally locked.
class FreedRanges {
 public:
  void add(const void* start, std::uint64_t nbytes);

  // What was freed since the last time: address and length. Of very many ranges nobody asked for, one
  // that holds them all: to forget more than was freed costs only time.
  std::vector<std::pair<std::uintptr_t, std::uint64_t>> take();
  // Whether there is something to take.
  bool any() const;

 private:
  mutable std::mutex mutex_;  // guards `ranges_`
  std::map<std::uintptr_t, std::uintptr_t> ranges_;  // begin to end, apart from each other
};

}  // namespace pipellm
