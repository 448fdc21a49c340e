// The copy seam over real CUDA: copies between device and pinned host memory that do not stall the
// program where confidential computing makes them (facts: they block the caller until the stream has
// drained).
//
// To the device: the bytes go to a staging block on a stream that is idle, so there is nothing to
// drain, and from there in the program's stream, on the device. From the device: the bytes go to a
// staging block in the program's stream, and to host memory by a thread of ours.
//
// So all that is put on the program's stream is put there at once, by the caller. CUDA itself keeps
// the order with whatever comes later on that stream, also with kernels that we never see: cuBLAS,
// cuDNN and NCCL launch through a runtime of their own. What needs care is the host's side alone, and
// owed.h is about that. A copy to the device reads its source early, too: not if anything that CUDA
// itself may write there is still under way.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "base/fork.h"
#include "cudart/owed.h"
#include "cudart/pinned.h"
#include "cudart/staging.h"
#include "cudart/worker.h"
#include "link/driver_api.h"

namespace pipellm::cudart {

// Internally locked. One per process; lives as long as it.
class Copies final : private ForkAware {
 public:
  // nullptr where there is nothing to gain, or CUDA cannot be used: confidential computing is off,
  // or this is a forked child.
  static Copies* active();

  // The copy seam. `copy` is asynchronous, and its stream is a cudaStream_t of CUDA's.
  Error copy(const PipellmCopy& copy);
  // What the program waits for: returns when all of it has arrived, with the error of a copy that
  // failed, if any did since the last time. To be called after CUDA's own waiting.
  Error sync(PipellmScope scope, Stream stream);

  Error wait(Event event);
  bool pending(Stream stream);
  bool pending(Event event);
  void record(Event event, Stream stream);
  void wait_event(Stream stream, Event event);
  void forget(Event event);

  static Lane lane(Stream stream);

  // The stream was given something that may write to this host memory, by default to any: a copy that
  // is not ours, a graph, a host function.
  void may_write_host(Stream stream, const void* memory = nullptr, std::size_t nbytes = SIZE_MAX);

  Owed& owed() { return owed_; }
  Pinned& pinned() { return pinned_; }

  void reset();  // the devices' contexts are about to end

 private:
  struct Device {
    Device(int number, Owed& owed, Owed& writes) : worker(number, supplies, owed, writes) {}
    Supplies supplies;
    Worker worker;
  };
  struct Count {
    std::atomic<std::uint64_t> copies{0}, bytes{0};
    void add(std::uint64_t nbytes) {
      copies.fetch_add(1, std::memory_order_relaxed);
      bytes.fetch_add(nbytes, std::memory_order_relaxed);
    }
  };
  static constexpr std::size_t kMaxDevices = 64;

  Copies();
  Device* device(int number);
  bool stage_to_device(const PipellmCopy& copy, Device& device);
  bool stage_to_host(const PipellmCopy& copy, Device& device);
  Error pass(const PipellmCopy& copy);
  static Arrivals overlapping(Owed& owed, const PipellmCopy& copy, const void* host);
  Error settle(const Arrivals& arrivals);
  void stop();
  void tell() const;
  void after_fork_in_child() noexcept override;

  Owed owed_;    // copies that are ours
  Owed writes_;  // what CUDA itself writes
  Pinned pinned_;
  std::mutex mutex_;  // guards what follows
  std::array<std::unique_ptr<Device>, kMaxDevices> devices_;
  Count to_device_, to_host_, passed_;
};

}  // namespace pipellm::cudart
