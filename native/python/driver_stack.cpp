#include "python/driver_stack.h"

#include <utility>

namespace pipellm {

DriverStack::DriverStack(int devices, const DeviceOptions& options, std::shared_ptr<Clock> clock,
                         std::int64_t* counters)
    : emulated_(devices, options, std::move(clock), counters) {}

const PipellmDriver& DriverStack::api() const {
  return layers_.empty() ? emulated_.api() : layers_.front()->api();
}

void DriverStack::pipeline(const Pipeline::Options& options, Pipelined::MakeRuntime make_runtime) {
  pipelined_ =
      std::make_unique<Pipelined>(emulated_, declarations_, options, std::move(make_runtime));
  layers_.insert(layers_.begin(), pipelined_.get());
}

void DriverStack::record(const std::string& directory) {
  recorder_ = std::make_unique<Recorder>(api(), *emulated_.clock(), emulated_.pinned(), directory);
  layers_.insert(layers_.begin(), recorder_.get());
}

void DriverStack::never_ahead(const void* start, std::uint64_t nbytes) {
  declarations_.never_ahead.add(start, nbytes);
  stop_reading(start, nbytes);
}

bool DriverStack::allow_ahead(const void* start, std::uint64_t nbytes) {
  const bool any = declarations_.never_ahead.remove(start, nbytes);
  if (any) stop_reading(start, nbytes);  // nobody reads; but whoever gave up on it tries again
  return any;
}

void DriverStack::stop_reading(const void* start, std::uint64_t nbytes) {
  for (Layer* const layer : layers_) layer->stop_reading(start, nbytes);
}

void DriverStack::stop_threads() {
  for (Layer* const layer : layers_) layer->stop_threads();
  emulated_.stop_threads();
}

}  // namespace pipellm
