#include "facade_library.h"

#include "alias.h"
#include "current.h"
#include "driver.h"
#include "generator.h"
#include "memory_statistics.h"
#include "storage_ops.h"
#include "stream_pool.h"

#include <torch/library.h>

#include <string>
#include <tuple>

namespace pipellm {

namespace {

using c10::DeviceIndex;

DeviceIndex narrow(int64_t device) { return static_cast<DeviceIndex>(device); }

// Touches the devices, as cuInit does: from here on their number is settled, and a forked child may
// not use them.
void touch_devices() {
  refuse_bad_fork();
  TORCH_CHECK(device_count() > 0, "No CUDA GPUs are available");
  settle_device_count();
  for (int device = 0; device < device_count(); ++device) {
    call<&PipellmDriver::sync>(device, PIPELLM_SYNC_DEVICE, int64_t{0});
  }
}

bool is_bad_fork() { return driver().in_bad_fork(driver().self) != 0; }

int64_t count_devices() { return device_count(); }
int64_t count_driver_devices() { return driver_device_count(); }

// Modelled work on a stream.
void busy(int64_t device, int64_t stream, int64_t nanoseconds) {
  call<&PipellmDriver::busy>(narrow(device), stream, nanoseconds);
}

// torch.Event has this too, but not for its subclasses. Milliseconds.
double event_elapsed(int64_t start, int64_t end) {
  double milliseconds = 0;
  call<&PipellmDriver::event_elapsed>(reinterpret_cast<void*>(start), reinterpret_cast<void*>(end),
                                      &milliseconds);
  return milliseconds;
}

// (free, total) bytes.
std::tuple<int64_t, int64_t> free_and_total(int64_t device) {
  PipellmMemoryInfo info{};
  call<&PipellmDriver::memory_info>(narrow(device), &info);
  return {static_cast<int64_t>(info.total - info.allocated), static_cast<int64_t>(info.total)};
}

void limit_fraction(double fraction, int64_t device) {
  limit_memory_fraction(narrow(device), fraction);
}
double fraction_of(int64_t device) { return memory_fraction(narrow(device)); }

// cudaHostRegister and cudaHostUnregister; they return a status, as cudart's do.
int64_t host_register(int64_t pointer, int64_t nbytes) {
  return status_of<&PipellmDriver::host_register>(reinterpret_cast<void*>(pointer),
                                                  static_cast<uint64_t>(nbytes));
}
int64_t host_unregister(int64_t pointer) {
  return status_of<&PipellmDriver::host_unregister>(reinterpret_cast<void*>(pointer));
}

void resize_storage(const c10::Storage& storage, int64_t nbytes) {
  resize_device_storage(storage, static_cast<size_t>(nbytes));
}

int64_t priority_of(int64_t device, int64_t stream) {
  return stream_priority(narrow(device), stream);
}

at::Tensor alias_on(const at::Tensor& host, int64_t device) {
  refuse_bad_fork();
  return device_alias(host, narrow(device));
}

at::Generator generator_of(int64_t device) { return default_generator(narrow(device)); }

}  // namespace

void register_facade_library() {
  auto* library = new torch::Library(MAKE_TORCH_LIBRARY(pipellm));  // leaked: see operators.cpp
  library->def("touch_devices", &touch_devices);
  library->def("in_bad_fork", &is_bad_fork);
  library->def("device_count", &count_devices);
  library->def("driver_device_count", &count_driver_devices);
  library->def("busy", &busy);
  library->def("event_elapsed", &event_elapsed);
  library->def("free_and_total", &free_and_total);
  library->def("set_memory_fraction", &limit_fraction);
  library->def("memory_fraction", &fraction_of);
  library->def("host_register", &host_register);
  library->def("host_unregister", &host_unregister);
  library->def("resize_storage", &resize_storage);
  library->def("stream_priority", &priority_of);
  library->def("device_alias", &alias_on);
  library->def("default_generator", &generator_of);
}

}  // namespace pipellm
