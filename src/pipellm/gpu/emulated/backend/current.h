// What CUDA keeps per thread: the current device, and the current stream of each device.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

namespace pipellm {

// Upper bound of emulated devices, so that per-thread state is a plain array.
constexpr int kMaxDevices = 64;

c10::DeviceIndex current_device() noexcept;
// Throws for a device that does not exist, in CUDA's words.
void set_current_device(c10::DeviceIndex device);
void set_current_device_unchecked(c10::DeviceIndex device) noexcept;

int64_t current_stream(c10::DeviceIndex device) noexcept;
void set_current_stream(c10::DeviceIndex device, int64_t stream) noexcept;

// `device`'s index, or the current device's where it has none ("cuda").
c10::DeviceIndex index_of(c10::Device device);

c10::Stream stream_of(c10::DeviceIndex device, int64_t stream);

// Makes a device current for one scope.
class CurrentDevice {
 public:
  explicit CurrentDevice(c10::DeviceIndex device) : previous_(current_device()) {
    set_current_device(device);
  }
  ~CurrentDevice() { set_current_device_unchecked(previous_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  c10::DeviceIndex previous_;
};

}  // namespace pipellm
