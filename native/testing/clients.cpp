// Many threads do everything at once that a driver's clients may do.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "base/pool.h"
#include "testing/stress.h"

namespace pipellm::stress {

namespace {

void client(Gpu& gpu, unsigned seed, unsigned rounds) {
  const PipellmDriver& api = gpu.api();
  const std::int64_t stream = gpu.stream();
  for (unsigned round = 0; round < rounds; ++round) {
    const std::size_t nbytes = (seed * 7919 + round * 104729) % (5 * kMiB) + 1;
    void* const device = gpu.device_memory(nbytes);
    void* const pinned = gpu.pinned_memory(nbytes);
    void* event = nullptr;
    require(api.event_create(api.self, 0, &event) == PIPELLM_OK, "no event");
    std::memset(pinned, static_cast<int>(seed + round), nbytes);
    for (int again = 0; again < 3; ++again) {
      require(gpu.copy(kH2d, pinned, device, nbytes, true, stream) == PIPELLM_OK,
              gpu.last_error());
    }
    api.busy(api.self, 0, stream, 1000);
    api.launch(api.self, 0, stream);
    static_cast<unsigned char*>(device)[nbytes / 2] ^= 0xFF;
    std::vector<unsigned char> back(nbytes);
    require(gpu.copy(kD2h, back.data(), device, nbytes, round % 2 == 0, stream) == PIPELLM_OK,
            gpu.last_error());
    api.event_record(api.self, event, stream);
    api.event_query(api.self, event);
    api.event_synchronize(api.self, event);
    // As a whole: ThreadSanitizer looks at every byte that the program does.
    std::vector<unsigned char> sent(nbytes, static_cast<unsigned char>(seed + round));
    sent[nbytes / 2] ^= 0xFF;
    if (back != sent) {
      const auto first = std::mismatch(back.begin(), back.end(), sent.begin()).first - back.begin();
      const auto at = static_cast<std::size_t>(first);
      require(false, "round " + std::to_string(round) + ": byte " + std::to_string(at) + " of " +
                         std::to_string(nbytes) + " came back as " + std::to_string(back[at]) +
                         ", sent was " + std::to_string(sent[at]));
    }
    api.event_destroy(api.self, event);
    api.free(api.self, device);
    api.host_free(api.self, pinned);
  }
}

void use_pool() {
  Pool pool(3);
  std::atomic<int> sum{0};
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 100; ++i) require(pool.submit([&sum] { ++sum; }), "no thread");
    pool.wait_idle();
    require(sum == (round + 1) * 100, "the pool lost a job");
  }
}

// A context that nobody uses hears of what is freed, and keeps little of it.
void free_while_idle() {
  Gpu gpu(Way::kAhead);
  Pipeline& pipeline = gpu.pipelined().pipeline(0);
  constexpr std::size_t kBlocks = 4000;
  std::vector<void*> blocks;
  for (std::size_t i = 0; i < kBlocks; ++i) blocks.push_back(gpu.pinned_memory(64));
  for (int again = 0; again < 2; ++again) {
    for (void* const block : blocks) pipeline.stop_reading(block, 64);
  }
  const auto freed = pipeline.freed();
  require(!freed.empty() && freed.size() <= 1024, "what was freed is kept range by range");
  for (void* const block : blocks) {
    const auto address = reinterpret_cast<std::uintptr_t>(block);
    const bool told = std::any_of(freed.begin(), freed.end(), [&](const auto& range) {
      return range.first <= address && address + 64 <= range.first + range.second;
    });
    require(told, "freed memory was forgotten");
  }
  require(pipeline.freed().empty(), "what was freed is told twice");
}

}  // namespace

void copy_from_many_threads(Gpu& gpu, unsigned rounds) {
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&gpu, seed, rounds] { client(gpu, seed, rounds); });
  }
  for (std::thread& thread : threads) thread.join();
}

void clients() {
  use_pool();
  free_while_idle();
  for (const Way way : kWays) {
    Gpu gpu(way);
    copy_from_many_threads(gpu, 12);
    require(gpu.synchronize() == PIPELLM_OK, "no synchronisation");
    require(gpu.held() == 0, "a token was not released once");
  }
}

}  // namespace pipellm::stress
