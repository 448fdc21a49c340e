// The process forks in the middle of a copy. The child's device is gone, its driver says so and keeps
// nothing, and a driver of its own works.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <semaphore>
#include <thread>

#include "testing/stress.h"

namespace pipellm::stress {

namespace {

void use_parents(Gpu& gpu, void* device, void* host) {
  void* memory = nullptr;
  const int before = gpu.held();
  require(gpu.api().malloc(gpu.api().self, 0, 64, &memory) == PIPELLM_CONTEXT_LOST,
          "a child has its parent's device");
  require(gpu.copy(kH2d, host, device, kMiB, true) == PIPELLM_CONTEXT_LOST,
          "a child copies to its parent's device");
  require(gpu.held() == before, "a refused copy kept its token");
  require(gpu.synchronize() == PIPELLM_CONTEXT_LOST, "a child waits for its parent's device");
  require(gpu.api().free(gpu.api().self, device) == PIPELLM_OK, "a child may not free");
  require(gpu.api().host_free(gpu.api().self, host) == PIPELLM_OK, "a child may not free");
  require(gpu.api().host_register(gpu.api().self, host, kMiB) == PIPELLM_CONTEXT_LOST,
          "a child registers memory with its parent's device");
  gpu.stop_threads();
}

[[maybe_unused]] void use_own(Way way) {
  Gpu gpu(way);
  copy_from_many_threads(gpu, 2);
  require(gpu.synchronize() == PIPELLM_OK && gpu.held() == 0, "a child's own device fails");
}

// Until every other thread waits: none then holds a lock of the allocator or of the sanitizers, which
// a child of theirs would never get.
void let_others_wait() {
  const auto waits = [](const std::filesystem::path& task) {
    std::ifstream status(task / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("State:")) return line.find("(sleeping)") != std::string::npos;
    }
    return true;  // it has ended
  };
  const std::string self = std::to_string(gettid());
  for (bool all = false; !all; std::this_thread::yield()) {
    all = true;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      all = all && (task.path().filename() == self || waits(task.path()));
    }
  }
}

void fork_in_mid_copy(Way way, Direction direction) {
  constexpr std::size_t kBytes = 20 * kMiB;
  Gpu gpu(way);
  void* const device = gpu.device_memory(kBytes);
  auto* const host = static_cast<unsigned char*>(gpu.pinned_memory(kBytes));
  std::memset(direction == kH2d ? host : device, 3, kBytes);
  std::binary_semaphore half(0), go_on(0);
  gpu.driver().context(0).engine().set_tap([&](Direction, std::uint32_t number, BounceSlot&) {
    if (number != 3) return;
    half.release();
    go_on.acquire();
  });
  std::thread copying([&] {
    require(gpu.copy(direction, host, device, kBytes, false) == PIPELLM_OK, gpu.last_error());
  });
  half.acquire();
  for (int i = 0; i < 3; ++i) {
    let_others_wait();
    const pid_t child = fork();
    if (child == 0) {
      use_parents(gpu, device, host);
#ifndef __SANITIZE_THREAD__  // which can have no threads in a child
      if (i == 0) use_own(way);
#endif
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    require(status == 0, "a child ended with " + std::to_string(status));
  }
  go_on.release();
  copying.join();
  require(gpu.synchronize() == PIPELLM_OK && gpu.held() == 0, "the parent does not go on");
  require(host[0] == 3 && std::memcmp(host, device, kBytes) == 0, "a byte came wrong");
}

}  // namespace

void forks() {
  for (const Way way : kSealed) {
    for (const Direction direction : {kH2d, kD2h}) fork_in_mid_copy(way, direction);
  }
}

}  // namespace pipellm::stress
