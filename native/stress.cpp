// A program for the sanitizers: many threads do everything at once that a driver's clients may do.
// Exit status 0 if every byte came back right. Built only with PIPELLM_SANITIZE (see CMakeLists.txt).
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "driver.h"
#include "pool.h"

namespace {

using namespace pipellm;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "stress: %s\n", what);
  std::abort();
}

void copy(const PipellmDriver& api, PipellmDirection direction, void* destination,
          const void* source, std::uint64_t nbytes, std::int64_t stream, bool asynchronous,
          std::atomic<int>& released) {
  ++released;  // goes back to zero when every token has come back
  const PipellmCopy request{0, direction, destination, source, nbytes, asynchronous, 0, stream,
                            &released,
                            [](void* token) { --*static_cast<std::atomic<int>*>(token); }};
  require(api.copy(api.self, &request) == PIPELLM_OK, api.last_error(api.self));
}

void client(const PipellmDriver& api, unsigned seed, std::atomic<int>& released) {
  std::int64_t stream = 0;
  require(api.stream_create(api.self, 0, &stream) == PIPELLM_OK, "no stream");
  for (unsigned round = 0; round < 12; ++round) {
    const std::size_t nbytes = (seed * 7919 + round * 104729) % (5 << 20) + 1;
    void *device = nullptr, *pinned = nullptr, *event = nullptr;
    require(api.malloc(api.self, 0, nbytes, &device) == PIPELLM_OK, "no device memory");
    require(api.host_alloc(api.self, nbytes, &pinned) == PIPELLM_OK, "no pinned memory");
    require(api.event_create(api.self, 0, &event) == PIPELLM_OK, "no event");
    std::memset(pinned, static_cast<int>(seed + round), nbytes);
    for (int again = 0; again < 3; ++again) {
      copy(api, PIPELLM_H2D, device, pinned, nbytes, stream, true, released);
    }
    api.busy(api.self, 0, stream, 1000);
    api.launch(api.self, 0, stream);
    static_cast<unsigned char*>(device)[nbytes / 2] ^= 0xFF;
    std::vector<unsigned char> back(nbytes);
    copy(api, PIPELLM_D2H, back.data(), device, nbytes, stream, round % 2 == 0, released);
    api.event_record(api.self, event, stream);
    api.event_query(api.self, event);
    api.event_synchronize(api.self, event);
    for (std::size_t i = 0; i < nbytes; ++i) {
      const auto sent = static_cast<unsigned char>(seed + round);
      require(back[i] == (i == nbytes / 2 ? sent ^ 0xFF : sent), "a byte came back wrong");
    }
    api.event_destroy(api.self, event);
    api.free(api.self, device);
    api.host_free(api.self, pinned);
  }
}

// Expects each client to ask for its last buffer again, seals that ahead, and is often wrong.
class GuessingRuntime final : public Runtime {
 public:
  explicit GuessingRuntime(Context& context) : context_(context) {}

  void request(Ordinal ordinal, const Transfer& transfer) override {
    const std::lock_guard lock(mutex_);
    const auto count = static_cast<std::uint32_t>((transfer.nbytes + kMessageBytes - 1) / kMessageBytes);
    if (transfer.direction == PIPELLM_D2H) {
      context_.receive(ordinal, received_ + 1);
      received_ += count;
      return;
    }
    context_.seal_ahead().news();
    const bool foreseen = guess_ != 0 && address_ == transfer.host && nbytes_ == transfer.nbytes &&
                          number_ == sent_ + 1 && context_.seal_ahead().unchanged(guess_);
    context_.send(ordinal, sent_ + 1, foreseen ? std::optional(guess_) : std::nullopt);
    if (guess_ != 0 && !foreseen) context_.seal_ahead().relinquish(guess_);
    sent_ += count;
    context_.send_nops(sent_ + 1, 1);
    ++sent_;
    guess_ = ++last_guess_;
    address_ = transfer.host;
    nbytes_ = transfer.nbytes;
    number_ = sent_ + 1;
    context_.seal_ahead().speculate(guess_, transfer.host, transfer.nbytes, 0, count, number_);
  }
  void order(std::optional<Stream>) override {}
  void synchronize(std::optional<Stream>) override { context_.landed(); }

 private:
  Context& context_;
  std::mutex mutex_;
  std::uint32_t sent_ = 0, received_ = 0, number_ = 0;
  Speculation guess_ = 0, last_guess_ = 0;
  const std::uint8_t* address_ = nullptr;
  std::uint64_t nbytes_ = 0;
};

void use_driver(bool confidential, bool guessing = false) {
  std::int64_t counters[kCounterNames.size()] = {};
  Driver driver(1, {std::uint64_t{1} << 30, confidential, true, engines().back(), engines().back(), {}}, std::make_shared<RealClock>(),
                counters);
  if (guessing) {
    driver.on_context([](int, Context& context) {
      context.set_runtime(std::make_unique<GuessingRuntime>(context), 2, 64);
    });
  }
  const PipellmDriver& api = *driver.api();
  std::atomic<int> released{0};
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&api, &released, seed] { client(api, seed, released); });
  }
  for (std::thread& thread : threads) thread.join();
  require(api.sync(api.self, 0, PIPELLM_SYNC_DEVICE, 0) == PIPELLM_OK, "no synchronisation");
  require(released == 0, "a token was not released once");

  const pid_t child = fork();
  if (child == 0) {
    void* memory = nullptr;
    _exit(api.malloc(api.self, 0, 64, &memory) == PIPELLM_CONTEXT_LOST ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  require(status == 0, "a forked child went on with its parent's context");
}

void use_pool() {
  Pool pool(3);
  std::atomic<int> sum{0};
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 100; ++i) pool.submit([&sum] { ++sum; });
    pool.wait_idle();
    require(sum == (round + 1) * 100, "the pool lost a job");
  }
}

}  // namespace

int main() {
  use_pool();
  use_driver(false);
  use_driver(true);
  use_driver(true, /*guessing=*/true);
  std::puts("stress: ok");
}
