#include "hooks.h"

#include "current.h"
#include "driver.h"
#include "generator.h"
#include "pinned_memory.h"

#include <ATen/detail/CUDAHooksInterface.h>

#include <new>

namespace pipellm {

namespace {

using c10::DeviceIndex;

class Hooks final : public at::CUDAHooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasCUDA() const override { return device_count() > 0; }
  bool hasPrimaryContext(DeviceIndex) const override {
    return driver().in_bad_fork(driver().self) == 0;
  }
  void init() const override { refuse_bad_fork(); }

  int getNumGPUs() const override { return device_count(); }
  DeviceIndex deviceCount() const override { return static_cast<DeviceIndex>(device_count()); }
  DeviceIndex current_device() const override { return pipellm::current_device(); }
  DeviceIndex getCurrentDevice() const override { return pipellm::current_device(); }
  void setCurrentDevice(DeviceIndex device) const override { set_current_device(device); }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    const DeviceIndex previous = pipellm::current_device();
    if (device >= 0) set_current_device(device);
    return previous;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override {
    return exchangeDevice(device);
  }
  void deviceSynchronize(DeviceIndex device) const override {
    call<&PipellmDriver::sync>(device, PIPELLM_SYNC_DEVICE, int64_t{0});
  }

  bool isPinnedPtr(const void* data) const override {
    return driver().is_pinned(driver().self, data) != 0;
  }
  at::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
  at::Allocator* getCUDADeviceAllocator() const override {
    return c10::GetAllocator(c10::kCUDA);
  }
  at::Device getDeviceFromPtr(void* data) const override {
    const int device = driver().device_of(driver().self, data);
    TORCH_CHECK(device >= 0, "The specified pointer resides on host memory and is not registered "
                             "with any CUDA device.");
    return {c10::kCUDA, static_cast<DeviceIndex>(device)};
  }

  const at::Generator& getDefaultGenerator(DeviceIndex device) const override {
    return default_generator(device);
  }
  at::Generator getNewGenerator(DeviceIndex device) const override { return new_generator(device); }
};

}  // namespace

void install_hooks() {
  // torch makes its hooks object once, from a registry, the first time that anyone asks: in a CPU
  // build that is the empty default, and it may long have been handed out. Both classes hold no
  // state, so ours takes the place of that object where it lies.
  static_assert(sizeof(Hooks) == sizeof(at::CUDAHooksInterface));
  auto& hooks = const_cast<at::CUDAHooksInterface&>(at::detail::getCUDAHooks());
  new (&hooks) Hooks();
}

}  // namespace pipellm
