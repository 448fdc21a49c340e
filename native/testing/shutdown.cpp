// The end: with work outstanding, in the middle of copies, and copies that come after it.
#include <cstring>
#include <optional>
#include <thread>

#include "testing/stress.h"

namespace pipellm::stress {

namespace {

constexpr std::size_t kBytes = 20 * kMiB;

// The driver goes while copies are under way.
void leave_work(Way way) {
  std::optional<Gpu> gpu(way);
  Memory in(*gpu, kBytes), out(*gpu, kBytes);
  void* const device = gpu->device_memory(kBytes);
  std::memset(device, 1, kBytes);
  for (int round = 0; round < 2; ++round) {
    require(gpu->copy(kH2d, in.data(), device, kBytes, true) == PIPELLM_OK,
            gpu->last_error());
    require(gpu->copy(kD2h, out.data(), device, kBytes, true) == PIPELLM_OK,
            gpu->last_error());
  }
  gpu.reset();
}

void copy_after_the_end(Way way) {
  Gpu gpu(way);
  void* const device = gpu.device_memory(kBytes);
  auto* const host = static_cast<unsigned char*>(gpu.pinned_memory(kBytes));
  gpu.copy(kH2d, host, device, kBytes, false);
  gpu.stop_threads();
  for (const bool asynchronous : {false, true}) {
    for (int round = 0; round < 3; ++round) {
      std::memset(host, 7 + round, kBytes);
      require(gpu.copy(kH2d, host, device, kBytes, asynchronous) == PIPELLM_OK &&
                  gpu.synchronize() == PIPELLM_OK,
              gpu.last_error());
      std::memset(host, 0, kBytes);
      require(gpu.copy(kD2h, host, device, kBytes, asynchronous) == PIPELLM_OK &&
                  gpu.synchronize() == PIPELLM_OK,
              gpu.last_error());
      require(host[0] == 7 + round && std::memcmp(host, host + 1, kBytes - 1) == 0,
              "a byte came back wrong");
    }
  }
  require(gpu.held() == 0, "a token was not released once");
}

void lose_after_the_end(Way way, Direction direction, bool asynchronous) {
  Gpu gpu(way);
  gpu.driver().tamper(direction, 2);
  void* const device = gpu.device_memory(kBytes);
  std::memset(device, 1, kBytes);
  gpu.stop_threads();
  Memory host(gpu, kBytes);
  int status = gpu.copy(direction, host.data(), device, kBytes, asynchronous);
  if (status == PIPELLM_OK) status = gpu.synchronize();
  host.give_back();
  gpu.require_lost(status);
  require(gpu.held() == 0, "a lost context kept a token");
}

}  // namespace

void shutdown() {
  for (const Way way : kWays) {
    for (int i = 0; i < 4; ++i) leave_work(way);
    copy_after_the_end(way);

    Gpu gpu(way);
    gpu.device_memory(1);
    std::thread stopping([&gpu] { gpu.stop_threads(); });
    copy_from_many_threads(gpu, 4);
    stopping.join();
  }
  for (const Way way : kSealed) {
    for (const Direction direction : {kH2d, kD2h}) {
      for (const bool asynchronous : {false, true}) {
        lose_after_the_end(way, direction, asynchronous);
      }
    }
  }
}

}  // namespace pipellm::stress
