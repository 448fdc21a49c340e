// What this process has sealed and opened here: how `pipellm doctor` and `pipellm run` see that a
// driver asked us.
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

// Two counters, which may lie in a file: pipellm.attach.served reads them there, in this order.
struct Counters {
  std::atomic<std::uint64_t> updates{0}, bytes{0};

  void count(std::size_t nbytes) {
    updates.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(nbytes, std::memory_order_relaxed);
  }
};

// Thread-safe. Once told, the file is counted in until the process ends, by its forked children too.
class Served {
 public:
  void count(std::size_t nbytes) {
    if (nbytes < kCountedFrom) return;
    here_.count(nbytes);
    if (Counters* file = file_.load(std::memory_order_acquire)) file->count(nbytes);
  }
  const Counters& here() const { return here_; }

  // Counts from now on in a new file of the folder that `pipellm run` named in PIPELLM_STATS_DIR,
  // as well. Does nothing without that folder, where the file cannot be made, and when called again.
  void tell_launcher();

 private:
  Counters here_;
  std::atomic<Counters*> file_{nullptr};
};

inline Served served;

}  // namespace pipellm::provider
