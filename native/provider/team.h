// Threads that lend a hand with one large message at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>

#include "base/fork.h"
#include "base/pool.h"
#include "provider/trial.h"

namespace pipellm::provider {

// Safe from any thread; never blocks on another caller's message. Threads start with the first
// large message; a forked child starts its own.
class Team final : private ForkAware {
 public:
  // Made when the provider is loaded, and never destroyed: at exit, its threads just sleep.
  static Team& instance();

  // Runs work(0) ... work(parts - 1), and returns when all have run: on the calling thread and, if
  // that has lately been faster, on those of the team that are awake in time. False, with nothing
  // run, if this process has one CPU or the team is busy: then as many threads seal at once as
  // there are callers, which is as good. The parts of all messages are of one size. `work` must not
  // throw.
  bool run(std::size_t parts, const std::function<void(std::size_t)>& work);

 private:
  struct Message;
  struct State;

  explicit Team(std::size_t threads);
  void ask_for_help(const std::shared_ptr<Message>& message, std::size_t threads) noexcept;
  static void help(State& state);
  void after_fork_in_child() noexcept override;

  const std::size_t threads_;
  Pool pool_;
  std::atomic<bool> busy_{false};
  Trial trial_;
  State* state_;  // owned; replaced in a forked child, where its lock may be taken for ever
};

}  // namespace pipellm::provider
