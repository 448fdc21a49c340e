// Contexts that are lost in the middle of a copy. The program gives its memory back the moment that
// it hears of it: whoever still reads or writes that memory ends the program.
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "testing/stress.h"

namespace pipellm::stress {

namespace {

// Which message is forged: each of four copies of four messages, and some of two that have more messages
// than the bounce buffer has slots. Under ThreadSanitizer, where a context costs a core 0.1 s, fewer:
// still one of each place in a copy.
#ifdef __SANITIZE_THREAD__
constexpr std::uint32_t kForged[] = {1, 4, 7, 10, 13}, kForgedOfMany[] = {1, 17, 33};
#else
constexpr std::uint32_t kForged[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                        kForgedOfMany[] = {1, 2, 16, 17, 20, 33};
#endif

// Copies until the context is lost over message `number`, which is forged. One buffer for each copy,
// some of them new, some known and so sealed ahead.
void lose(Way way, Direction direction, std::uint32_t number, bool asynchronous,
          std::size_t nbytes) {
  Gpu gpu(way);
  gpu.driver().tamper(direction, number);
  Memory one(gpu, nbytes), other(gpu, nbytes);
  void* const device = gpu.device_memory(nbytes);
  std::memset(device, 1, nbytes);
  int status = PIPELLM_OK;
  for (int round = 0; round < 64 && status == PIPELLM_OK; ++round) {
    status = gpu.copy(direction, (round / 2 % 2 == 0 ? one : other).data(), device, nbytes, asynchronous);
    if (status == PIPELLM_OK && round % 4 == 3) status = gpu.synchronize();
  }
  one.give_back();
  other.give_back();
  gpu.require_lost(status);
  require(gpu.held() == 0, std::string("a lost context kept a token: ") + name_of(way) + ", " +
                               direction_name(direction) + " message " + std::to_string(number) + (asynchronous ? ", asynchronous" : ""));

  Memory more(gpu, nbytes);
  gpu.require_lost(gpu.copy(direction, more.data(), device, nbytes, asynchronous));
  require(gpu.held() == 0, "a lost context took a token and kept it");
  gpu.require_lost(gpu.synchronize());
  require(gpu.api().free(gpu.api().self, device) == PIPELLM_OK, "memory of a lost context stays");
}

// Several threads, of which one has its message forged: every one hears of it, and lets go at once.
void lose_with_neighbours(Way way, Direction direction, bool asynchronous) {
  constexpr std::size_t kBytes = 3 * kMiB;
  Gpu gpu(way);
  gpu.driver().tamper(direction, 40);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    // Not by the thread: the first may have lost the context before the last begins.
    const std::int64_t stream = gpu.stream();
    void* const device = gpu.device_memory(kBytes);
    threads.emplace_back([&, stream, device] {
      Memory host(gpu, kBytes);
      int status = PIPELLM_OK;
      while (status == PIPELLM_OK) {
        status = gpu.copy(direction, host.data(), device, kBytes, asynchronous, stream);
        if (status == PIPELLM_OK) status = gpu.api().launch(gpu.api().self, 0, stream);
      }
      host.give_back();
      gpu.require_lost(status);
    });
  }
  for (std::thread& thread : threads) thread.join();
  gpu.require_lost(gpu.synchronize());
  require(gpu.held() == 0, "a lost context kept a token");
}

// Fails at a copy, before or after it has sent it.
class FailingRuntime final : public Runtime {
 public:
  FailingRuntime(Pipeline& pipeline, bool after) : pipeline_(pipeline), after_(after) {}
  void request(Ordinal ordinal, const Transfer& transfer) override {
    const std::uint32_t count = static_cast<std::uint32_t>(
        (transfer.nbytes + kMessageBytes - 1) / kMessageBytes);
    if (!after_) throw std::runtime_error("no");
    if (transfer.direction == kH2d) {
      pipeline_.send(ordinal, sent_ + 1, std::nullopt);
      sent_ += count;
    } else {
      pipeline_.receive(ordinal, received_ + 1);
      received_ += count;
    }
    throw std::runtime_error("no");
  }
  void order(std::optional<Stream>) override {}
  void synchronize(std::optional<Stream>) override {}

 private:
  Pipeline& pipeline_;
  const bool after_;
  std::uint32_t sent_ = 0, received_ = 0;
};

}  // namespace

void lost() {
  for (const Direction direction : {kH2d, kD2h}) {
    for (const Way way : kSealed) {
      for (const bool asynchronous : {false, true}) {
        for (const std::uint32_t number : kForged) {
          lose(way, direction, number, asynchronous, 4 * kMiB - 5);
        }
        for (const std::uint32_t number : kForgedOfMany) {
          lose(way, direction, number, asynchronous, 20 * kMiB);
        }
        lose_with_neighbours(way, direction, asynchronous);
      }
    }
  }
}

void failing_runtime() {
  constexpr std::size_t kBytes = 20 * kMiB;
  for (const bool after : {false, true}) {
    Gpu gpu(Way::kSerial);
    gpu.pipeline([after](int, Pipeline& over) {
      return std::make_unique<FailingRuntime>(over, after);
    });
    void* const device = gpu.device_memory(kBytes);
    std::memset(device, 1, kBytes);
    for (int round = 0; round < 6; ++round) {
      for (const Direction direction : {kH2d, kD2h}) {
        Memory host(gpu, kBytes);
        require(gpu.copy(direction, host.data(), device, kBytes, false) == PIPELLM_UNKNOWN,
                "a runtime that failed is not what the program was told of");
        host.give_back();
        require(gpu.last_error() == "no", gpu.last_error());
      }
    }
    require(gpu.synchronize() == PIPELLM_OK, "a failing runtime lost the context");
    require(gpu.held() == 0, "a copy that failed kept its token");
  }
}

}  // namespace pipellm::stress
