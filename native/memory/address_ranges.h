// Sets of bytes of host memory about which somebody has said something: that they will not change, or
// that they are not to be read ahead.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace pipellm {

// Which of the times that something was said: a ciphertext made under one promise is worth nothing
// under the next, for the memory may have changed in between.
using Generation = std::uint64_t;

// Internally locked.
class AddressRanges {
 public:
  // Bytes that were in the set already are as new as the others.
  void add(const void* start, std::uint64_t nbytes);
  // Takes out what is in the set of these bytes. False: nothing was.
  bool remove(const void* start, std::uint64_t nbytes);

  // 0 unless all of these bytes are in the set, else a number that stays the same for as long as
  // none of them is added again.
  Generation generation(const void* start, std::uint64_t nbytes) const;
  // Whether any of these bytes is in the set.
  bool overlaps(const void* start, std::uint64_t nbytes) const;

 private:
  struct Range {
    std::uintptr_t end;
    Generation generation;
  };
  using Ranges = std::map<std::uintptr_t, Range>;  // by their start; disjoint

  static std::uintptr_t address_of(const void* start) {
    return reinterpret_cast<std::uintptr_t>(start);
  }
  Ranges::const_iterator first_after(std::uintptr_t address) const;  // whose end lies behind it
  bool take_out(std::uintptr_t start, std::uintptr_t end);

  mutable std::mutex mutex_;  // guards all below
  Ranges ranges_;
  Generation last_ = 0;
};

}  // namespace pipellm
