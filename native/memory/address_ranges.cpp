#include "memory/address_ranges.h"

#include <algorithm>
#include <iterator>

namespace pipellm {

void AddressRanges::add(const void* start, std::uint64_t nbytes) {
  if (nbytes == 0) return;
  const std::uintptr_t address = address_of(start);
  const std::lock_guard lock(mutex_);
  take_out(address, address + nbytes);
  ranges_[address] = {address + nbytes, ++last_};
}

bool AddressRanges::remove(const void* start, std::uint64_t nbytes) {
  const std::uintptr_t address = address_of(start);
  const std::lock_guard lock(mutex_);
  return take_out(address, address + nbytes);
}

Generation AddressRanges::generation(const void* start, std::uint64_t nbytes) const {
  std::uintptr_t at = address_of(start);
  const std::uintptr_t end = at + nbytes;
  Generation newest = 0;
  const std::lock_guard lock(mutex_);
  for (auto range = first_after(at); at < end; ++range) {
    if (range == ranges_.end() || range->first > at) return 0;
    newest = std::max(newest, range->second.generation);
    at = range->second.end;
  }
  return newest;
}

bool AddressRanges::overlaps(const void* start, std::uint64_t nbytes) const {
  const std::uintptr_t address = address_of(start);
  const std::lock_guard lock(mutex_);
  const auto range = first_after(address);
  return range != ranges_.end() && range->first < address + nbytes;
}

AddressRanges::Ranges::const_iterator AddressRanges::first_after(std::uintptr_t address) const {
  const auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) return after;
  const auto before = std::prev(after);
  return before->second.end > address ? before : after;
}

// Of a range that reaches beyond, the ends stay.
bool AddressRanges::take_out(std::uintptr_t start, std::uintptr_t end) {
  bool any = false;
  for (auto range = first_after(start); range != ranges_.end() && range->first < end;) {
    const auto [begins, old] = *range;
    range = ranges_.erase(range);
    if (begins < start) ranges_[begins] = {start, old.generation};
    if (end < old.end) range = ranges_.insert_or_assign(end, Range{old.end, old.generation}).first;
    any = true;
  }
  return any;
}

}  // namespace pipellm
