// The emulated driver: all devices of one process. Contexts are made at first use, as CUDA's are.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"
#include "base/fork.h"
#include "emulator/context.h"
#include "link/driver_api.h"
#include "link/errors.h"
#include "memory/pinned_memory.h"

namespace pipellm {

// Thread-safe. Lives as long as the process: tensors refer to its memory until the very end.
class Driver final : private ForkAware {
 public:
  // `counters` outlives the driver.
  Driver(int devices, const DeviceOptions& options, std::shared_ptr<Clock> clock,
         std::int64_t* counters);
  ~Driver() override;

  const PipellmDriver& api() const { return api_; }
  const std::shared_ptr<Clock>& clock() const { return clock_; }
  int devices() const { return static_cast<int>(contexts_.size()); }
  bool confidential() const { return options_.confidential; }
  const DeviceOptions& options() const { return options_; }

  // True in the child of a process that had already used a device: its keys and threads are gone.
  bool in_bad_fork() const { return forked_; }

  // Flips a bit of one message of device 0 while it lies in the open, as an attacker on the bus could.
  // Before the device is first used. Native, so that other messages do not wait for Python's lock.
  void tamper(Direction direction, std::uint32_t number);

  // Throw DriverError (no such device, bad fork). With `stream`, also if the stream is unknown.
  Context& context(int device);
  Context& context(int device, Stream stream);
  // Before the process ends: no thread of ours runs while libraries take themselves apart.
  void stop_threads();

  // Whether no thread plays a device at the moment. For measurements.
  bool idle();
  Context* context_if_used(int device) { return contexts_[static_cast<std::size_t>(device)].load(); }

  // Memory. `free` throws DriverError for a pointer that is not the driver's; in a bad fork it does
  // nothing, because the child only inherited the pointer.
  void* allocate(int device, std::uint64_t nbytes);
  void free(void* pointer);
  int device_of(const void* pointer);
  void* allocate_host(std::uint64_t nbytes);
  void free_host(void* pointer);
  void register_host(void* pointer, std::uint64_t nbytes);
  void unregister_host(void* pointer);
  bool is_pinned(const void* pointer);
  // A layer counts the program's copies. Before anybody copies.
  void leave_requests_to_a_layer() { counters_.leave_requests_to_a_layer(); }
  // What is pinned in truth, whatever the program is told.
  const PinnedMemory& pinned() const { return pinned_; }

 private:
  void refuse_bad_fork() const;  // throws DriverError
  void after_fork_in_child() noexcept override;

  const DeviceOptions options_;
  const std::shared_ptr<Clock> clock_;
  Counters counters_;
  PinnedMemory pinned_;
  std::mutex mutex_;  // held while a context is made
  CopyEngine::Tap attack_;  // on device 0
  std::vector<std::atomic<Context*>> contexts_;  // owned
  std::atomic<bool> used_{false};
  std::atomic<bool> forked_{false};
  const PipellmDriver api_;
};

// Fills the C table (driver_api.cpp).
PipellmDriver make_driver_api(Driver& driver);

}  // namespace pipellm
