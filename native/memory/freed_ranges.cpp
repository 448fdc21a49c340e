#include "memory/freed_ranges.h"

#include <algorithm>
#include <iterator>

namespace pipellm {

namespace {

// So many ranges are kept apart until somebody asks.
constexpr std::size_t kFreedRanges = 1024;

}  // namespace

void FreedRanges::add(const void* start, std::uint64_t nbytes) {
  auto begin = reinterpret_cast<std::uintptr_t>(start);
  auto end = begin + nbytes;
  const std::lock_guard lock(mutex_);
  auto at = ranges_.upper_bound(end);
  while (at != ranges_.begin()) {
    const auto before = std::prev(at);
    if (before->second < begin) break;
    begin = std::min(begin, before->first);
    end = std::max(end, before->second);
    at = ranges_.erase(before);
  }
  ranges_.emplace(begin, end);
  if (ranges_.size() > kFreedRanges) {
    const std::uintptr_t first = ranges_.begin()->first, last = ranges_.rbegin()->second;
    ranges_.clear();
    ranges_.emplace(first, last);
  }
}

std::vector<std::pair<std::uintptr_t, std::uint64_t>> FreedRanges::take() {
  std::vector<std::pair<std::uintptr_t, std::uint64_t>> taken;
  const std::lock_guard lock(mutex_);
  for (const auto& [begin, end] : ranges_) taken.emplace_back(begin, end - begin);
  ranges_.clear();
  return taken;
}

bool FreedRanges::any() const {
  const std::lock_guard lock(mutex_);
  return !ranges_.empty();
}

}  // namespace pipellm
