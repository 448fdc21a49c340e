#include "python/driver_stack.h"

#include <stdexcept>
#include <utility>

namespace pipellm {

DriverStack::DriverStack(int devices, const DeviceOptions& options, std::shared_ptr<Clock> clock,
                         std::int64_t* counters)
    : emulated_(devices, options, std::move(clock), counters), counters_(counters) {}

const PipellmDriver& DriverStack::api() {
  handed_out_ = true;
  return top();
}

const PipellmDriver& DriverStack::top() const {
  return layers_.empty() ? emulated_.api() : layers_.front()->api();
}

void DriverStack::put(Layer& layer) { layers_.insert(layers_.begin(), &layer); }

void DriverStack::require_nobody_has_it() const {
  if (handed_out_) throw std::logic_error("a layer goes over a driver before anybody has its table");
}

void DriverStack::pipeline(const Pipeline::Options& options, Pipelined::MakeRuntime make_runtime) {
  require_nobody_has_it();
  pipelined_ =
      std::make_unique<Pipelined>(emulated_, declarations_, options, std::move(make_runtime));
  put(*pipelined_);
}

void DriverStack::prefetch(const prefetch::Options& options,
                           prefetch::PrefetchDriver::MakePlanner make_planner) {
  require_nobody_has_it();
  prefetching_ = std::make_unique<prefetch::PrefetchDriver>(
      top(), options, declarations_.never_ahead, std::move(make_planner));
  put(*prefetching_);
  emulated_.leave_requests_to_a_layer();
  counted_ = std::make_unique<CountedCopies>(top(), *emulated_.clock(), counters_);
  put(*counted_);
}

void DriverStack::record(const std::string& directory) {
  require_nobody_has_it();
  const PinnedMemory& pinned =
      prefetching_ == nullptr ? emulated_.pinned() : prefetching_->pinned();
  recorder_ = std::make_unique<Recorder>(top(), *emulated_.clock(), pinned, directory);
  put(*recorder_);
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
