// The library's one exported symbol. Loading the library changes nothing; installing makes `cuda`
// devices of this process's CPU-only PyTorch, for good.

#include "collectives.h"
#include "copy.h"
#include "current.h"
#include "device_memory.h"
#include "driver.h"
#include "facade_library.h"
#include "guard.h"
#include "hooks.h"
#include "operators.h"
#include "reducer_timer.h"
#include "sparse.h"

#include <exception>
#include <iostream>

namespace {

int install(const PipellmDriver* table) {
  using namespace pipellm;
  if (table->abi != PIPELLM_DRIVER_ABI || table->size != sizeof(PipellmDriver)) {
    return PIPELLM_INVALID_VALUE;
  }
  const int devices = table->device_count(table->self);
  if (devices < 1 || devices > kMaxDevices) return PIPELLM_INVALID_DEVICE;
  install_driver(table);
  register_guard();
  install_hooks();
  register_device_memory();
  register_copy();
  register_operators();
  register_sparse();
  register_facade_library();
  register_reducer_timer();
  register_collectives();
  return PIPELLM_OK;
}

}  // namespace

// Once per process. INVALID_VALUE: the table is of another version; INVALID_DEVICE: it offers no
// devices, or too many. `table` must stay valid until the process ends.
extern "C" __attribute__((visibility("default"))) int pipellm_backend_install(
    const PipellmDriver* table) {
  try {
    return install(table);
  } catch (const std::exception& error) {
    std::cerr << "pipellm: the emulated GPU cannot be installed: " << error.what() << '\n';
    return PIPELLM_NOT_SUPPORTED;
  }
}
