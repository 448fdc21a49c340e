#include "emulator/driver.h"

#include <string>

namespace pipellm {

Driver::Driver(int devices, const DeviceOptions& options, std::shared_ptr<Clock> clock,
               std::int64_t* counters)
    : options_(options),
      clock_(std::move(clock)),
      counters_(counters),
      contexts_(static_cast<std::size_t>(devices)),
      api_(make_driver_api(*this)) {}

Driver::~Driver() {
  if (forked_) return;  // what the parent made is not the child's to take apart
  for (auto& context : contexts_) delete context.load();
}

void Driver::refuse_bad_fork() const {
  if (!forked_) return;
  throw DriverError(PIPELLM_CONTEXT_LOST,
                    "the process forked after it had used the GPU; a child needs a context of its "
                    "own, so start it with the 'spawn' method");
}

void Driver::tamper(Direction direction, std::uint32_t number) {
  const std::lock_guard lock(mutex_);
  attack_ = [direction, number](Direction towards, std::uint32_t passing, BounceSlot& slot) {
    if (towards == direction && passing == number) slot.ciphertext[0] ^= 1;
  };
}

Context& Driver::context(int device) {
  refuse_bad_fork();
  if (device < 0 || device >= devices()) {
    throw DriverError(PIPELLM_INVALID_DEVICE, "there is no GPU " + std::to_string(device) + ", only " +
                                                  std::to_string(devices()));
  }
  std::atomic<Context*>& slot = contexts_[static_cast<std::size_t>(device)];
  if (Context* made = slot.load(std::memory_order_acquire)) return *made;
  used_ = true;  // before the lock: a child that finds it taken must know not to wait for it
  const std::lock_guard lock(mutex_);
  if (slot.load() == nullptr) {
    auto made = std::make_unique<Context>(options_, *clock_, pinned_, counters_);
    if (device == 0 && attack_) made->engine().set_tap(attack_);
    slot.store(made.release(), std::memory_order_release);
  }
  return *slot.load();
}

Context& Driver::context(int device, Stream stream) {
  Context& found = context(device);
  if (stream != 0 && !found.known(stream)) {
    throw DriverError(PIPELLM_INVALID_HANDLE, "GPU " + std::to_string(device) + " has no stream " +
                                                  std::to_string(stream));
  }
  return found;
}

bool Driver::idle() {
  for (auto& slot : contexts_) {
    Context* const context = slot.load();
    if (context != nullptr && !context->engine().idle()) return false;
  }
  return true;
}

void Driver::stop_threads() {
  if (forked_) return;
  for (auto& slot : contexts_) {
    if (Context* context = slot.load()) context->stop_threads();
  }
}

void* Driver::allocate(int device, std::uint64_t nbytes) {
  Context& found = context(device);
  void* block = found.memory().allocate(nbytes);
  if (block == nullptr) {
    found.finish_and_reap();  // copies may be all that keeps memory alive
    block = found.memory().allocate(nbytes);
  }
  if (block == nullptr) {
    const MemoryUse use = found.memory().use();
    throw DriverError(PIPELLM_OUT_OF_MEMORY, "out of memory on GPU " + std::to_string(device) + ": " +
                                                 std::to_string(nbytes) + " bytes asked for, " +
                                                 std::to_string(use.allocated) + " of " +
                                                 std::to_string(use.total) + " in use");
  }
  return block;
}

void Driver::free(void* pointer) {
  if (pointer == nullptr || forked_) return;
  for (auto& slot : contexts_) {
    Context* context = slot.load();
    if (context == nullptr) continue;
    context->forget_values(pointer, context->memory().size_of(pointer));
    if (context->memory().release(pointer)) return;
  }
  throw DriverError(PIPELLM_INVALID_VALUE, "the pointer to free is no GPU memory of this process");
}

int Driver::device_of(const void* pointer) {
  if (forked_) return -1;
  for (int device = 0; device < devices(); ++device) {
    Context* context = context_if_used(device);
    if (context != nullptr && context->memory().contains(pointer, 1)) return device;
  }
  return -1;
}

void* Driver::allocate_host(std::uint64_t nbytes) {
  refuse_bad_fork();
  void* block = pinned_.allocate(nbytes);
  if (block == nullptr) {
    throw DriverError(PIPELLM_OUT_OF_MEMORY,
                      "out of host memory: " + std::to_string(nbytes) + " pinned bytes asked for");
  }
  return block;
}

void Driver::free_host(void* pointer) {
  if (pointer == nullptr || forked_) return;
  if (!pinned_.release(pointer)) {
    throw DriverError(PIPELLM_INVALID_VALUE, "the pointer to free is no pinned memory");
  }
}

void Driver::register_host(void* pointer, std::uint64_t nbytes) {
  refuse_bad_fork();
  if (!options_.pins) {
    throw DriverError(PIPELLM_NOT_SUPPORTED,
                      "cudaHostRegister is not supported on a confidential GPU");
  }
  if (pointer == nullptr || nbytes == 0 || !pinned_.add(pointer, nbytes)) {
    throw DriverError(PIPELLM_INVALID_VALUE, "the memory to register is empty or pinned already");
  }
}

void Driver::unregister_host(void* pointer) {
  if (forked_) return;
  if (!options_.pins) {
    throw DriverError(PIPELLM_NOT_SUPPORTED,
                      "cudaHostUnregister is not supported on a confidential GPU");
  }
  if (!pinned_.remove(pointer)) {
    throw DriverError(PIPELLM_INVALID_VALUE, "the memory to unregister was not registered");
  }
}

bool Driver::is_pinned(const void* pointer) {
  return options_.pins && !forked_ && pinned_.contains(pointer, 1);
}

void Driver::after_fork_in_child() noexcept {
  if (used_) forked_ = true;
}

}  // namespace pipellm
