#include "python/driver_stack.h"

#include <utility>

namespace pipellm {

DriverStack::DriverStack(int devices, const DeviceOptions& options, std::shared_ptr<Clock> clock,
                         std::int64_t* counters)
    : emulated_(devices, options, std::move(clock), counters) {}

const PipellmDriver& DriverStack::api() const {
  return recorder_ != nullptr ? recorder_->api() : emulated_.api();
}

void DriverStack::record(const std::string& directory) {
  recorder_ = std::make_unique<Recorder>(api(), *emulated_.clock(), emulated_.pinned(), directory);
}

}  // namespace pipellm
