#include "pipelined/pipelined.h"

#include <utility>

namespace pipellm {

Pipelined::Pipelined(Driver& driver, const Declarations& declarations,
                     const Pipeline::Options& options, MakeRuntime make_runtime)
    : Layer(driver.api()),
      driver_(driver),
      declarations_(declarations),
      options_(options),
      make_runtime_(std::move(make_runtime)),
      pipelines_(static_cast<std::size_t>(driver.devices())) {
  pipelining::put_entries(api_);
}

Pipelined::~Pipelined() {
  for_each([](Pipeline& pipeline) { delete &pipeline; });
}

Pipeline& Pipelined::pipeline(int device) {
  Context& context = driver_.context(device);  // refuses what it must
  std::atomic<Pipeline*>& slot = pipelines_[static_cast<std::size_t>(device)];
  if (Pipeline* made = slot.load(std::memory_order_acquire)) return *made;
  const std::lock_guard lock(mutex_);
  if (slot.load() == nullptr) {
    const auto make = [&](Pipeline& pipeline) { return make_runtime_(device, pipeline); };
    slot.store(new Pipeline(context, driver_.pinned(), declarations_, options_, make),
               std::memory_order_release);
  }
  return *slot.load();
}

Pipeline& Pipelined::pipeline(int device, Stream stream) {
  driver_.context(device, stream);
  return pipeline(device);
}

Pipeline* Pipelined::pipeline_if_used(int device) {
  if (driver_.in_bad_fork() || driver_.context_if_used(device) == nullptr) return nullptr;
  return &pipeline(device);
}

// In a child, what the parent made is not to be touched.
template <typename Do>
void Pipelined::for_each(Do act) {
  if (driver_.in_bad_fork()) return;
  for (auto& slot : pipelines_) {
    if (Pipeline* pipeline = slot.load()) act(*pipeline);
  }
}

void Pipelined::stop_reading(const void* start, std::uint64_t nbytes) {
  for_each([&](Pipeline& pipeline) { pipeline.stop_reading(start, nbytes); });
}

void Pipelined::freeze() {
  for_each([](Pipeline& pipeline) { pipeline.freeze(); });
}

void Pipelined::thaw() {
  for_each([](Pipeline& pipeline) { pipeline.thaw(); });
}

bool Pipelined::idle() {
  bool all = true;
  for_each([&](Pipeline& pipeline) { all = all && pipeline.idle(); });
  return all;
}

void Pipelined::stop_threads() {
  for_each([](Pipeline& pipeline) { pipeline.stop_threads(); });
}

}  // namespace pipellm
