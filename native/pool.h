// Worker threads that run small jobs (sealing or opening one message) without the GIL.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "fork.h"

namespace pipellm {

// Internally locked. Threads start with the first job. A forked child starts its own, and never runs
// a job that was its parent's. Destruction finishes what was submitted.
class Pool final : private ForkAware {
 public:
  using Job = std::function<void()>;

  explicit Pool(std::size_t threads);
  ~Pool() override;

  // Jobs of one kind start in the order of submission. One that throws ends the program: a job
  // reports its errors itself.
  void submit(Job job);
  // Before all that were not: somebody waits for it.
  void submit_urgent(Job job);
  // Finishes what was submitted and ends the threads. From now on urgent jobs run on the thread that
  // submits them, and others not at all.
  void stop();
  void wait_idle();  // until every job submitted so far has run
  std::size_t threads() const { return size_; }

 private:
  struct State {
    std::mutex mutex;  // guards all below
    std::condition_variable work, idle;
    std::deque<Job> urgent, jobs;
    std::size_t running = 0;
    bool stop = false;
    std::vector<std::thread> threads;
  };
  void submit_to(std::deque<Job> State::*queue, Job job);
  static void thread_main(State& state);
  void after_fork_in_child() noexcept override;

  const std::size_t size_;
  State* state_;  // owned; replaced in a forked child, where the old one is unusable
};

}  // namespace pipellm
