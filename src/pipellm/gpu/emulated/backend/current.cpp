#include "current.h"

#include "driver.h"

#include <c10/util/Exception.h>

#include <array>

namespace pipellm {

namespace {

struct PerThread {
  c10::DeviceIndex device = 0;
  std::array<int64_t, kMaxDevices> streams{};  // 0 is each device's default stream
};

thread_local PerThread mine;

}  // namespace

c10::DeviceIndex current_device() noexcept { return mine.device; }

void set_current_device(c10::DeviceIndex device) {
  if (device == mine.device) return;
  if (device < 0 || device >= device_count()) {
    throw c10::AcceleratorError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)},
                                PIPELLM_INVALID_DEVICE, "CUDA error: invalid device ordinal");
  }
  mine.device = device;
}

void set_current_device_unchecked(c10::DeviceIndex device) noexcept {
  if (device >= 0 && device < device_count()) mine.device = device;
}

int64_t current_stream(c10::DeviceIndex device) noexcept {
  return mine.streams[static_cast<size_t>(device)];
}

void set_current_stream(c10::DeviceIndex device, int64_t stream) noexcept {
  mine.streams[static_cast<size_t>(device)] = stream;
}

c10::DeviceIndex index_of(c10::Device device) {
  return device.has_index() ? device.index() : current_device();
}

c10::Stream stream_of(c10::DeviceIndex device, int64_t stream) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::kCUDA, device), stream);
}

}  // namespace pipellm
