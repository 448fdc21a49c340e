#include "prefetch/prefetch_driver.h"

#include <memory>

#include "link/status.h"
#include "prefetch/device.h"

namespace pipellm::prefetch {

PrefetchDriver::PrefetchDriver(const PipellmDriver& table, const Options& options)
    : Layer(table),
      table_(table),
      options_(options),
      devices_(static_cast<std::size_t>(below(&PipellmDriver::device_count))) {
  put_entries(api_);
}

PrefetchDriver::~PrefetchDriver() {
  if (forked_) return;  // what the parent made is not the child's to take apart
  for (auto& device : devices_) delete device.load();
}

Device* PrefetchDriver::device_if_used(std::int32_t number) const {
  if (number < 0 || static_cast<std::size_t>(number) >= devices_.size()) return nullptr;
  return devices_[static_cast<std::size_t>(number)].load(std::memory_order_acquire);
}

Device* PrefetchDriver::device(std::int32_t number, int& status) {
  if (Device* const made = device_if_used(number)) return made;
  if (number < 0 || static_cast<std::size_t>(number) >= devices_.size()) {
    status = refused(PIPELLM_INVALID_DEVICE, "there is no GPU " + std::to_string(number));
    return nullptr;
  }
  used_ = true;  // before the lock: a child that finds it taken must know not to wait for it
  const std::lock_guard lock(mutex_);
  auto& slot = devices_[static_cast<std::size_t>(number)];
  if (Device* const made = slot.load()) return made;
  auto made = std::make_unique<Device>(table_, number, options_, pinned_, never_ahead_);
  status = made->open();
  if (status != PIPELLM_OK) return nullptr;
  if (stopped_) made->stop();
  slot.store(made.get(), std::memory_order_release);
  return made.release();
}

void PrefetchDriver::order(int device, std::vector<Order> orders) {
  if (forked_) return;
  if (Device* const used = device_if_used(device)) used->order(std::move(orders));
}

std::vector<News> PrefetchDriver::await_news(int device, std::int64_t nanoseconds) {
  if (forked_) return {};
  Device* const used = device_if_used(device);
  return used == nullptr ? std::vector<News>{} : used->await_news(nanoseconds);
}

std::uint64_t PrefetchDriver::held(int device) const {
  const Device* const used = forked_ ? nullptr : device_if_used(device);
  return used == nullptr ? 0 : used->held();
}

void PrefetchDriver::never_ahead(Range range) {
  if (forked_) return;
  never_ahead_.add(range.data(), range.nbytes);
  each_device([&](Device& device) { device.stop_reading(range); });
}

bool PrefetchDriver::allow_ahead(Range range) {
  return !forked_ && never_ahead_.remove(range.data(), range.nbytes);
}

void PrefetchDriver::stop_threads() {
  if (forked_) return;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  each_device([](Device& device) { device.stop(); });
}

void PrefetchDriver::add_block(const void* start, std::uint64_t nbytes) {
  const std::lock_guard lock(blocks_mutex_);
  blocks_[start] = nbytes;
}

std::uint64_t PrefetchDriver::remove_block(const void* start) {
  const std::lock_guard lock(blocks_mutex_);
  const auto found = blocks_.find(start);
  if (found == blocks_.end()) return 0;
  const std::uint64_t nbytes = found->second;
  blocks_.erase(found);
  return nbytes;
}

void PrefetchDriver::after_fork_in_child() noexcept {
  if (!used_) return;
  forked_ = true;
  each_device([](Device& device) { device.forget_threads(); });
}

}  // namespace pipellm::prefetch
