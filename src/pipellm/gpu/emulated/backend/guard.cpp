#include "guard.h"

#include "current.h"
#include "driver.h"
#include "stream_pool.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

namespace pipellm {

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return c10::kCUDA; }

  Device exchangeDevice(Device device) const override {
    const Device previous = getDevice();
    set_current_device(device.index());
    return previous;
  }
  Device getDevice() const override { return Device(c10::kCUDA, current_device()); }
  void setDevice(Device device) const override { set_current_device(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override {
    set_current_device_unchecked(device.index());
  }
  DeviceIndex deviceCount() const noexcept override {
    return static_cast<DeviceIndex>(device_count());
  }
  c10::DeviceCapability getDeviceCapability(Device) const override { return {}; }

  Stream getStream(Device device) const override {
    const DeviceIndex index = index_of(device);
    return stream_of(index, current_stream(index));
  }
  Stream getDefaultStream(Device device) const override { return stream_of(index_of(device), 0); }
  Stream getStreamFromGlobalPool(Device device, bool high) const override {
    return getNewStream(device, high ? -1 : 0);
  }
  Stream getNewStream(Device device, int priority) const override {
    const DeviceIndex index = index_of(device);
    return stream_of(index, pooled_stream(index, priority));
  }
  Stream exchangeStream(Stream stream) const override {
    const Stream previous = getStream(stream.device());
    set_current_stream(stream.device_index(), stream.id());
    return previous;
  }
  void* getStreamNativeHandle(const Stream stream) const override {
    return reinterpret_cast<void*>(stream.id());
  }
  bool queryStream(const Stream& stream) const override {
    return query<&PipellmDriver::stream_query>(stream.device_index(), stream.id());
  }
  void synchronizeStream(const Stream& stream) const override {
    call<&PipellmDriver::sync>(stream.device_index(), PIPELLM_SYNC_STREAM, stream.id());
  }
  void synchronizeDevice(const DeviceIndex device) const override {
    call<&PipellmDriver::sync>(device, PIPELLM_SYNC_DEVICE, int64_t{0});
  }

  // The driver times every event, so `flag` has nothing to choose; PyTorch itself refuses
  // elapsed_time on events that were made without timing.
  void record(void** event, const Stream& stream, const DeviceIndex device,
              const c10::EventFlag) const override {
    TORCH_CHECK(device == -1 || device == stream.device_index(), "Event device index ", device,
                " does not match recording stream's device index ", stream.device_index(), ".");
    if (*event == nullptr) call<&PipellmDriver::event_create>(stream.device_index(), event);
    call<&PipellmDriver::event_record>(*event, stream.id());
  }
  void block(void* event, const Stream& stream) const override {
    if (event == nullptr) return;  // never recorded: nothing to wait for
    call<&PipellmDriver::stream_wait_event>(stream.device_index(), stream.id(), event);
  }
  bool queryEvent(void* event) const override {
    return event == nullptr || query<&PipellmDriver::event_query>(event);
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) call<&PipellmDriver::event_synchronize>(event);
  }
  double elapsedTime(void* start, void* end, const DeviceIndex) const override {
    double milliseconds = 0;
    call<&PipellmDriver::event_elapsed>(start, end, &milliseconds);
    return milliseconds;
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    // Nobody can be told about a failure here.
    if (event != nullptr) status_of<&PipellmDriver::event_destroy>(event);
  }
};

}  // namespace

void register_guard() {
  // Leaked on purpose: torch's registry does not own what it points to, and uses it until exit.
  c10::impl::DeviceGuardImplRegistrar(c10::kCUDA, new Guard());
}

}  // namespace pipellm
