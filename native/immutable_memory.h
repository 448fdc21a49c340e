// Memory whose owner has promised that its bytes stay as they are: it needs no watching.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace pipellm {

// Internally locked.
class ImmutableMemory {
 public:
  void declare(const void* start, std::uint64_t nbytes);
  bool withdraw(const void* start);  // false: nothing was declared at this address
  // Whether all of it lies inside one declared range.
  bool contains(const void* start, std::uint64_t nbytes) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, std::uint64_t> ranges_;  // address to length
};

}  // namespace pipellm
