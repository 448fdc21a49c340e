#include "driver.h"

#include "visible_devices.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <cstdlib>
#include <string>

namespace pipellm {

namespace {

const PipellmDriver* installed = nullptr;
int installed_device_count = 0;
std::atomic<int> settled_device_count{-1};

}  // namespace

const PipellmDriver& driver() { return *installed; }

void install_driver(const PipellmDriver* table) {
  installed = table;
  installed_device_count = table->device_count(table->self);
}

int driver_device_count() { return installed_device_count; }

int device_count() {
  const int settled = settled_device_count.load(std::memory_order_relaxed);
  if (settled >= 0) return settled;
  return count_visible(std::getenv("CUDA_VISIBLE_DEVICES"), installed_device_count);
}

void settle_device_count() { settled_device_count = device_count(); }

void refuse_bad_fork() {
  TORCH_CHECK(!driver().in_bad_fork(driver().self),
              "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, "
              "you must use the 'spawn' start method");
}

void raise(int status) {
  // Whatever the driver says in such a child, this is the error that programs expect.
  refuse_bad_fork();
  const char* words = driver().last_error(driver().self);
  std::string message = "CUDA error: ";
  message += words != nullptr && *words != '\0' ? words : "unknown error";
  const c10::SourceLocation here{__func__, __FILE__, static_cast<uint32_t>(__LINE__)};
  if (status == PIPELLM_OUT_OF_MEMORY) throw c10::OutOfMemoryError(here, message);
  throw c10::AcceleratorError(here, status, message);
}

}  // namespace pipellm
