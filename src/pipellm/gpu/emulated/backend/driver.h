// The installed driver table (native/link/driver_api.h), and how its statuses become exceptions.
#pragma once

#include "link/driver_api.h"

namespace pipellm {

// Valid after `install_driver`; one driver per process, for the process's whole life.
const PipellmDriver& driver();
void install_driver(const PipellmDriver* table);

// How many devices the driver has. That never changes, so it is asked for once.
int driver_device_count();

// How many of them the program sees. CUDA_VISIBLE_DEVICES may hide some until the devices are first
// used, which settles it.
int device_count();
void settle_device_count();

// Throws what PyTorch throws for the same cudaError_t: torch.OutOfMemoryError, or
// torch.AcceleratorError with the driver's own words; in a child of a process that had used the
// device, the RuntimeError that CUDA programs know.
[[noreturn]] void raise(int status);

// The bad-fork error, if this process may not use the device.
void refuse_bad_fork();

inline void check(int status) {
  if (status != PIPELLM_OK) raise(status);
}

// Calls one entry of the table: call<&PipellmDriver::launch>(device, stream).
template <auto Entry, typename... Arguments>
int status_of(Arguments... arguments) {
  const PipellmDriver& table = driver();
  return (table.*Entry)(table.self, arguments...);
}

template <auto Entry, typename... Arguments>
void call(Arguments... arguments) {
  check(status_of<Entry>(arguments...));
}

// A query that answers OK (true) or NOT_READY (false).
template <auto Entry, typename... Arguments>
bool query(Arguments... arguments) {
  const int status = status_of<Entry>(arguments...);
  if (status == PIPELLM_NOT_READY) return false;
  check(status);
  return true;
}

}  // namespace pipellm
