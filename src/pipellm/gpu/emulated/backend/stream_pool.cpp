#include "stream_pool.h"

#include "current.h"
#include "driver.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

namespace pipellm {

namespace {

constexpr size_t kStreamsPerPool = 32;  // c10::cuda's number

struct Pool {
  std::vector<int64_t> streams;
  size_t next = 0;
};

struct DevicePools {
  Pool normal, high;
};

std::mutex pools_mutex;
auto& pools = *new std::array<DevicePools, kMaxDevices>;  // guarded by `pools_mutex`; leaked

}  // namespace

int64_t pooled_stream(c10::DeviceIndex device, int priority) {
  const std::lock_guard lock(pools_mutex);
  DevicePools& both = pools.at(static_cast<size_t>(device));
  Pool& pool = priority < 0 ? both.high : both.normal;
  if (pool.streams.size() < kStreamsPerPool) {
    int64_t stream = 0;
    call<&PipellmDriver::stream_create>(device, &stream);
    pool.streams.push_back(stream);
    return stream;
  }
  return pool.streams[pool.next++ % kStreamsPerPool];
}

int stream_priority(c10::DeviceIndex device, int64_t stream) {
  const std::lock_guard lock(pools_mutex);
  const auto& high = pools.at(static_cast<size_t>(device)).high.streams;
  return std::find(high.begin(), high.end(), stream) == high.end() ? 0 : -1;
}

}  // namespace pipellm
