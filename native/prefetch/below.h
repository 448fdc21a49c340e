// The driver below, for one device: its calls as this layer makes them, and what went wrong in them.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "link/driver_api.h"

namespace pipellm::prefetch {

// What a thread of ours met after the program's call had returned, until the program was told. Of several
// the first one; a lost context takes the place of all others, and stays.
class Fault {
 public:
  void set(int status, const char* text);
  int status() const { return status_.load(std::memory_order_acquire); }
  // For a thread of the program's: the fault, if there is one, with its text as the thread's last error.
  int tell();

 private:
  std::atomic<int> status_{PIPELLM_OK};
  std::mutex mutex_;
  std::string text_;
};

// Internally locked. Every call may be made by any thread; those that return nothing note a fault.
class Below {
 public:
  Below(const PipellmDriver& table, std::int32_t device) : table_(table), device_(device) {}
  ~Below();

  const PipellmDriver& table() const { return table_; }
  std::int32_t device() const { return device_; }
  Fault& fault() { return fault_; }

  // One that nobody waits for, notes nothing but a lost context.
  int try_copy(PipellmDirection direction, void* destination, const void* source,
               std::uint64_t nbytes, bool asynchronous, std::int64_t stream);
  int copy(PipellmDirection direction, void* destination, const void* source, std::uint64_t nbytes,
           bool asynchronous, std::int64_t stream);
  // Notes what a call of ours gave that the program did not make.
  int noted(int status);

  // Events of the driver's that are used again. nullptr, and a fault, if there is none.
  void* take_event();
  void give_event(void* event);
  bool is_over(void* event);

 private:
  const PipellmDriver& table_;
  const std::int32_t device_;
  Fault fault_;
  std::mutex mutex_;
  std::vector<void*> events_;
};

}  // namespace pipellm::prefetch
