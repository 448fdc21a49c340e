// Worker threads that run small jobs (sealing or opening one message) without the GIL.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/fork.h"

namespace pipellm {

// Internally locked. Threads start with the first job. A forked child starts its own, and never runs
// a job that was its parent's. Destruction finishes what was submitted. A job may run long after who
// submitted it has gone: it owns what it touches, or somebody waits for it.
class Pool final : private ForkAware {
 public:
  using Job = std::function<void()>;

  explicit Pool(std::size_t threads);
  ~Pool() override;

  // Jobs of one kind start in the order of submission. One that throws ends the program: a job
  // reports its errors itself. False: nobody will run it, because the pool was stopped or the system
  // gives no thread; who needs it done does it himself.
  bool submit(Job job);
  // Before all that were not: somebody waits for it.
  bool submit_urgent(Job job);
  // Finishes what was submitted and ends the threads, for good.
  void stop();
  void wait_idle();  // until every job submitted so far has run
  bool idle() const;
  // Until `thaw` no job begins; returns when those that have begun are done. For measurements.
  void freeze();
  void thaw();
  // Time that the threads have spent on the CPU, for jobs that are done.
  Nanoseconds cpu_time() const { return cpu_time_.load(std::memory_order_relaxed); }
  std::size_t threads() const { return size_; }

 private:
  struct State {
    std::mutex mutex;  // guards all below
    std::condition_variable work, idle;
    std::deque<Job> urgent, jobs;
    std::size_t running = 0;
    bool stop = false, frozen = false;
    std::vector<std::thread> threads;
  };
  bool submit_to(std::deque<Job> State::*queue, Job job);
  bool start_threads();  // with the lock; false if there is none
  static void thread_main(State& state, std::atomic<Nanoseconds>& cpu_time);
  void after_fork_in_child() noexcept override;

  const std::size_t size_;
  std::atomic<Nanoseconds> cpu_time_{0};
  State* state_;  // owned; replaced in a forked child, where the old one is unusable
};

}  // namespace pipellm
