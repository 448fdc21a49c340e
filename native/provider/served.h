// What this process has sealed and opened here: how `pipellm doctor` sees that a driver asked us.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pipellm::provider {

// The provider's parameters that tell them, as unsigned 64-bit integers.
inline constexpr char kServedUpdates[] = "pipellm-served-updates";
inline constexpr char kServedBytes[] = "pipellm-served-bytes";

// Updates from this size on. Copies are larger, and a server's many small records do not have to
// share a cache line for the count of them.
inline constexpr std::size_t kCountedFrom = 4096;

struct Served {
  std::atomic<std::uint64_t> updates{0}, bytes{0};

  void count(std::size_t nbytes) {
    if (nbytes < kCountedFrom) return;
    updates.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(nbytes, std::memory_order_relaxed);
  }
};

inline Served served;

}  // namespace pipellm::provider
