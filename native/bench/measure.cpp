#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/pool.h"
#include "crypto/channel.h"
#include "link/status.h"
#include "memory/fingerprint.h"

namespace pipellm {

namespace {

// Bytes per second of `step`, which handles `bytes`. The best of five parts.
template <typename Step>
double measure(double seconds, std::size_t bytes, Step step) {
  using Clock = std::chrono::steady_clock;
  constexpr int kParts = 5;
  double best = 0;
  for (int part = 0; part < kParts; ++part) {
    const auto start = Clock::now();
    double done = 0;
    std::chrono::duration<double> spent{};
    do {
      step();
      done += static_cast<double>(bytes);
      spent = Clock::now() - start;
    } while (spent.count() < seconds / kParts);
    best = std::max(best, done / spent.count());
  }
  return best;
}

}  // namespace

double measure_seal(Engine engine, double seconds, std::size_t threads) {
  // A key and data of zeros: speed does not depend on them, and no session's key is touched. Each
  // thread has buffers that together leave the cache, as a swap's do.
  constexpr std::size_t kMessages = 16;
  const std::array<std::uint8_t, kKeyBytes> key{};
  const auto aead = make_aead(engine, key);
  struct Buffers {
    std::vector<std::uint8_t> plaintext = std::vector<std::uint8_t>(kMessages * kMessageBytes, 1);
    std::vector<std::uint8_t> ciphertext = std::vector<std::uint8_t>(kMessages * kMessageBytes, 2);
  };
  std::vector<Buffers> buffers(threads);
  const auto seal_all = [&aead](Buffers& mine) {
    Tag tag;
    for (std::size_t i = 0; i < kMessages; ++i) {
      const Iv iv{static_cast<std::uint8_t>(i)};
      aead->seal(iv, {mine.plaintext.data() + i * kMessageBytes, kMessageBytes},
                 mine.ciphertext.data() + i * kMessageBytes, tag);
    }
  };
  if (threads == 1) {
    return measure(seconds, kMessages * kMessageBytes, [&] { seal_all(buffers[0]); });
  }
  Pool pool(threads);
  return measure(seconds, threads * kMessages * kMessageBytes, [&] {
    for (Buffers& mine : buffers) {
      if (!pool.submit([&] { seal_all(mine); })) seal_all(mine);
    }
    pool.wait_idle();
  });
}

double measure_memcpy(double seconds) {
  constexpr std::size_t kBytes = 16 * kMessageBytes;
  std::vector<std::uint8_t> from(kBytes, 1), to(kBytes, 2);
  return measure(seconds, kBytes, [&] {
    std::memcpy(to.data(), from.data(), kBytes);
    asm volatile("" : : "r"(to.data()) : "memory");  // the copy must not be optimised away
  });
}

double measure_fingerprint(double seconds) {
  constexpr std::size_t kMessages = 16;
  std::vector<std::uint8_t> memory(kMessages * kMessageBytes, 1);
  return measure(seconds, memory.size(), [&] {
    for (std::size_t i = 0; i < kMessages; ++i) {
      const Fingerprint made = fingerprint(memory.data() + i * kMessageBytes, kMessageBytes);
      asm volatile("" : : "r"(made.low) : "memory");  // nor the hash
    }
  });
}

std::vector<CopyTime> measure_copies(const PipellmDriver& driver, Clock& clock, Direction direction,
                                     bool pinned, std::uint64_t nbytes, std::size_t repeats) {
  void* const self = driver.self;
  void* device = nullptr;
  require_ok(driver.malloc(self, 0, nbytes, &device));
  std::vector<std::uint8_t> pageable(pinned ? 0 : nbytes, 1);
  void* host = pageable.data();
  if (pinned) require_ok(driver.host_alloc(self, nbytes, &host));
  const bool h2d = direction == kH2d;
  const PipellmCopy copy{0,      direction, h2d ? device : host, h2d ? host : device, nbytes, 0, 0, 0,
                         nullptr, nullptr};
  std::vector<CopyTime> times;
  for (std::size_t i = 0; i < repeats; ++i) {
    const auto wall = std::chrono::steady_clock::now();
    const Nanoseconds emulated = clock.now();
    require_ok(driver.copy(self, &copy));
    times.push_back(
        {clock.now() - emulated,
         std::chrono::nanoseconds(std::chrono::steady_clock::now() - wall).count()});
  }
  require_ok(driver.free(self, device));
  if (pinned) require_ok(driver.host_free(self, host));
  return times;
}

}  // namespace pipellm
