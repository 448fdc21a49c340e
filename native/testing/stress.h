// What the scenes of the stress program share: a driver under one of the ways to run it, copies whose
// tokens are counted, and memory that really goes away.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "emulator/driver.h"
#include "memory/declarations.h"
#include "pipelined/pipelined.h"
#include "prefetch/prefetch_driver.h"

namespace pipellm::stress {

inline constexpr std::size_t kMiB = std::size_t{1} << 20;

// Ends the program with one line.
void require(bool condition, const std::string& what);

// How copies go: in the clear, sealed on the calling thread, by a runtime that seals ahead, or through
// the layer that prefetches what was copied before.
enum class Way { kClear, kSerial, kAhead, kPrefetch };
inline constexpr Way kWays[] = {Way::kClear, Way::kSerial, Way::kAhead, Way::kPrefetch};
inline constexpr Way kSealed[] = {Way::kSerial, Way::kAhead, Way::kPrefetch};
const char* name_of(Way way);

// One GPU of 1 GiB, on a clock that costs nothing.
class Gpu {
 public:
  explicit Gpu(Way way);
  ~Gpu();
  // Puts the pipelined layer over it. Before anything else.
  void pipeline(Pipelined::MakeRuntime make_runtime);
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  Driver& driver() { return *driver_; }
  Pipelined& pipelined() { return *pipelined_; }
  const PipellmDriver& api() const {
    if (prefetching_ != nullptr) return prefetching_->api();
    return pipelined_ ? pipelined_->api() : driver_->api();
  }
  void stop_threads();

  // The status that the driver gave.
  int copy(Direction direction, void* host, void* device, std::uint64_t nbytes, bool asynchronous,
           std::int64_t stream = 0);
  int synchronize() { return api().sync(api().self, 0, PIPELLM_SYNC_DEVICE, 0); }
  std::string last_error() const { return api().last_error(api().self); }

  void* device_memory(std::uint64_t nbytes);
  void* pinned_memory(std::uint64_t nbytes);
  std::int64_t stream();

  // Tokens that were not released yet.
  int held() const { return held_; }
  void require_lost(int status);

 private:
  std::int64_t counters_[kCounterNames.size()] = {};
  std::atomic<int> held_{0};
  std::unique_ptr<Driver> driver_;
  Declarations declarations_;
  std::unique_ptr<Pipelined> pipelined_;
  std::unique_ptr<prefetch::PrefetchDriver> prefetching_;
};

// Host memory whose copies may be asynchronous. Whoever touches it after `give_back` is found out: its
// pages are gone then. Not so under ThreadSanitizer, for which reading ahead under a guard is a race:
// there it is the driver's own memory, used again by the next.
class Memory {
 public:
  Memory(Gpu& gpu, std::size_t nbytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return data_; }
  void give_back();

 private:
  Gpu& gpu_;
  const std::size_t nbytes_;
  void* const data_;
  bool mapped_ = true;
};

// Many threads copy, each to and from memory of its own, and look at what comes back.
void copy_from_many_threads(Gpu& gpu, unsigned rounds);

// The scenes.
void clients();
void lost();
void failing_runtime();
void signals();
void forks();
void shutdown();

}  // namespace pipellm::stress
