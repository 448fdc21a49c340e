#include "prefetch/prefetch_driver.h"

#include <memory>
#include <utility>

#include "link/status.h"
#include "prefetch/device.h"

namespace pipellm::prefetch {

PrefetchDriver::PrefetchDriver(const PipellmDriver& table, const Options& options,
                               const AddressRanges& never_ahead, MakePlanner make_planner)
    : Layer(table),
      table_(table),
      options_(options),
      never_ahead_(never_ahead),
      make_planner_(std::move(make_planner)),
      planners_(static_cast<std::size_t>(below(&PipellmDriver::device_count))),
      devices_(planners_.size()) {
  put_entries(api_);
}

PrefetchDriver::~PrefetchDriver() {
  if (forked_) {  // what the parent made is not the child's to take apart
    for (auto& planner : planners_) (void)planner.release();
    return;
  }
  stop_threads();
  each_device([](Device& device) {
    device.stop();
    if (!device.left_behind()) delete &device;
  });
}

Device* PrefetchDriver::device_if_used(std::int32_t number) const {
  if (number < 0 || static_cast<std::size_t>(number) >= devices_.size()) return nullptr;
  return devices_[static_cast<std::size_t>(number)].load(std::memory_order_acquire);
}

Device* PrefetchDriver::device(std::int32_t number, int& status) {
  if (Device* const made = device_if_used(number)) return made;
  if (number < 0 || static_cast<std::size_t>(number) >= devices_.size()) {
    const std::string why = "there is no GPU " + std::to_string(number);
    status = refused(PIPELLM_INVALID_DEVICE, why.c_str());
    return nullptr;
  }
  used_ = true;  // before the lock: a child that finds it taken must know not to wait for it
  return open(number, status);
}

Device* PrefetchDriver::open(std::int32_t number, int& status) {
  auto& slot = devices_[static_cast<std::size_t>(number)];
  Device* opened = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (Device* const made = slot.load()) return made;
    auto made = std::make_unique<Device>(table_, number, options_, pinned_, never_ahead_);
    status = made->open();
    if (status != PIPELLM_OK) return nullptr;
    if (make_planner_) (void)made->await_news(0, 0);  // from now on they are kept
    if (stopped_) made->stop();
    opened = made.release();
    slot.store(opened, std::memory_order_release);
  }
  add_planner(number);
  return opened;
}

void PrefetchDriver::add_planner(std::int32_t number) {
  auto made = make_planner_ ? make_planner_(number, *this) : nullptr;
  if (made == nullptr) return;
  {
    const std::lock_guard lock(mutex_);
    if (!stopped_) {
      planners_[static_cast<std::size_t>(number)] = std::move(made);
      return;
    }
  }
  made->stop();
}

Planner* PrefetchDriver::planner(int device) {
  if (forked_ || device_if_used(device) == nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  return planners_[static_cast<std::size_t>(device)].get();
}

template <typename Body>
void PrefetchDriver::each_planner(Body body) {
  std::vector<Planner*> planners;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& planner : planners_) {
      if (planner != nullptr) planners.push_back(planner.get());
    }
  }
  for (Planner* const planner : planners) body(*planner);
}

void PrefetchDriver::order(int device, std::vector<Order> orders) {
  if (forked_) return;
  if (Device* const used = device_if_used(device)) used->order(std::move(orders));
}

std::vector<News> PrefetchDriver::await_news(int device, std::int64_t least, std::int64_t most) {
  if (forked_) return {};
  Device* const used = device_if_used(device);
  return used == nullptr ? std::vector<News>{} : used->await_news(least, most);
}

void PrefetchDriver::wake(int device) {
  if (forked_) return;
  if (Device* const used = device_if_used(device)) used->wake();
}

bool PrefetchDriver::has_news(int device) const {
  Device* const used = forked_ ? nullptr : device_if_used(device);
  return used != nullptr && used->has_news();
}

std::uint64_t PrefetchDriver::held(int device) const {
  const Device* const used = forked_ ? nullptr : device_if_used(device);
  return used == nullptr ? 0 : used->held();
}

void PrefetchDriver::stop_reading(const void* start, std::uint64_t nbytes) {
  if (forked_) return;
  each_device([&](Device& device) { device.declared(range_of(start, nbytes)); });
}

void PrefetchDriver::freeze() {
  if (forked_) return;
  each_planner([](Planner& planner) { planner.freeze(); });
  each_device([](Device& device) { device.freeze(); });
}

void PrefetchDriver::thaw() {
  if (forked_) return;
  each_device([](Device& device) { device.thaw(); });
  each_planner([](Planner& planner) { planner.thaw(); });
}

bool PrefetchDriver::idle() {
  if (forked_) return true;
  bool all = true;
  each_planner([&](Planner& planner) { all = all && planner.idle(); });
  each_device([&](Device& device) { all = all && device.idle(); });
  return all;
}

void PrefetchDriver::stop_threads() {
  if (forked_) return;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  each_planner([](Planner& planner) { planner.stop(); });
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
