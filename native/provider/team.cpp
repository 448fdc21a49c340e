#include "provider/team.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "provider/signals_blocked.h"

namespace pipellm::provider {

namespace {

// The caller's among them: one for each part of the 1 MiB that a driver seals at once.
constexpr std::size_t kMaxThreads = 8;
// Half of a machine is the program's own, unless that leaves less than this.
constexpr std::size_t kFewThreads = 4;

// How long a thread looks out for the next message before it sleeps. Large copies come as a row of
// messages, and to wake a thread up takes as long as it saves on one of 1 MiB.
constexpr std::chrono::microseconds kLingering{100};

using Clock = std::chrono::steady_clock;

// Beside the caller's.
std::size_t helpers() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
  const auto cpus = static_cast<std::size_t>(std::max(CPU_COUNT(&allowed), 1));
  return std::min(std::max(cpus / 2, std::min(cpus, kFewThreads)), kMaxThreads) - 1;
}

}  // namespace

// One message. Shared, because a thread may wake up when all is done and the caller gone; `work` is
// touched only by whoever has claimed a part, and until the last part is done the caller waits.
struct Team::Message {
  const std::function<void(std::size_t)>* work;
  int parts;
  std::atomic<int> claimed{0}, done{0};  // int: what a futex can wait for

  void help() {
    for (int part; (part = claimed.fetch_add(1, std::memory_order_relaxed)) < parts;) {
      (*work)(static_cast<std::size_t>(part));
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == parts) done.notify_one();
    }
  }

  void wait() {
    for (int seen; (seen = done.load(std::memory_order_acquire)) != parts;) done.wait(seen);
  }
};

struct Team::State {
  std::mutex mutex;  // guards what follows; `number` may be read without it
  std::shared_ptr<Message> message;
  std::atomic<std::uint64_t> number{0};  // of messages so far
  std::size_t helpers = 0;               // threads that will see the next message by themselves
};

Team& Team::instance() {
  static auto* const team = new Team(helpers());
  return *team;
}

Team::Team(std::size_t threads) : threads_(threads), pool_(threads), state_(new State) {}

bool Team::run(std::size_t parts, const std::function<void(std::size_t)>& work) {
  if (threads_ == 0) return false;
  const auto message = std::make_shared<Message>(&work, static_cast<int>(parts));
  if (busy_.exchange(true, std::memory_order_acquire)) return false;
  const bool help = trial_.choose_help();
  const auto start = Clock::now();
  if (help) ask_for_help(message, std::min(threads_, parts - 1));
  message->help();
  message->wait();
  const std::chrono::nanoseconds spent = Clock::now() - start;
  trial_.record(help, spent.count() / static_cast<std::int64_t>(parts));
  busy_.store(false, std::memory_order_release);
  return true;
}

void Team::ask_for_help(const std::shared_ptr<Message>& message, std::size_t threads) noexcept try {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.message = message;
  state.number.fetch_add(1, std::memory_order_release);
  const std::size_t missing = threads - std::min(threads, state.helpers);
  state.helpers += missing;
  lock.unlock();
  if (missing == 0) return;
  const SignalsBlocked blocked;
  for (std::size_t i = 0; i < missing; ++i) pool_.submit([&state] { help(state); });
} catch (const std::exception&) {
  // No thread or no memory to be had: what nobody else takes is left to the caller. Those that were
  // counted and did not come are not asked again.
}

void Team::help(State& state) {
  for (std::uint64_t seen = 0;;) {
    std::unique_lock lock(state.mutex);
    if (seen == state.number.load(std::memory_order_relaxed)) {
      --state.helpers;
      return;
    }
    seen = state.number.load(std::memory_order_relaxed);
    const auto message = state.message;
    lock.unlock();
    message->help();
    const auto until = Clock::now() + kLingering;
    while (state.number.load(std::memory_order_acquire) == seen && Clock::now() < until) {
      std::this_thread::yield();
    }
  }
}

void Team::after_fork_in_child() noexcept {
  busy_.store(false);  // whoever was at work is a thread of the parent's
  state_ = new State;
}

}  // namespace pipellm::provider
