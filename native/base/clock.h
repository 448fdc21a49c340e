// The clock of the emulated machine.
//
// It is monotonic time that stands still while the emulator does a GPU's work on a CPU: the copy
// engine is hardware in reality, and a program must not be charged for it. It may go slower than
// monotonic time: then a machine that is faster than this one is played in slow motion. Time in
// nanoseconds.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

namespace pipellm {

using Nanoseconds = std::int64_t;

// How long the calling thread has been on a CPU: real time, whatever the clock.
Nanoseconds thread_cpu_time();

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanoseconds now() = 0;
  virtual void wait_until(Nanoseconds deadline) = 0;  // returns at once if it has passed
  virtual void pause() = 0;                           // nests, also across threads
  virtual void resume() = 0;
  virtual Nanoseconds paused() = 0;  // how long it has stood still so far, by the wall
  // How long threads have used a CPU so far for nothing but to wait until a time.
  virtual Nanoseconds spun() { return 0; }
  // How many times slower than monotonic time it goes.
  virtual double slowdown() const { return 1; }
  // For a clock with a slowdown: how long the calling thread has been on a CPU so far, but for
  // waiting until a time, and for what it did while time stood still by its own wish.
  virtual Nanoseconds worked() { return thread_cpu_time(); }
  // So much of what the calling thread has worked is modelled, and passes otherwise: it is left out of
  // `worked`.
  virtual void leave_out(Nanoseconds /*worked*/) {}
  // From now on a wait is over at once, and its time has passed, while `nobody_works` says that nothing
  // can happen before its end. For one thread that waits; set while nobody uses the clock. An empty
  // function ends it.
  virtual void skip_waits(std::function<bool()> /*nobody_works*/) {}
};

// While any thread pauses it, time stands still for all.
class RealClock final : public Clock {
 public:
  explicit RealClock(double slowdown = 1);  // throws std::invalid_argument for less than 1

  Nanoseconds now() override;
  void wait_until(Nanoseconds deadline) override;
  void pause() override;
  void resume() override;
  Nanoseconds paused() override;
  Nanoseconds spun() override { return spun_.load(std::memory_order_relaxed); }
  double slowdown() const override { return slowdown_; }
  Nanoseconds worked() override;
  void leave_out(Nanoseconds worked) override;
  void skip_waits(std::function<bool()> nobody_works) override {
    nobody_works_ = std::move(nobody_works);
  }

 private:
  Nanoseconds ask();  // for the calling thread's time on a CPU; what that takes is left out
  Nanoseconds paused_at(Nanoseconds monotonic) const;
  Nanoseconds emulated(Nanoseconds monotonic) const;
  bool skip_to(Nanoseconds deadline);

  const double slowdown_;
  Nanoseconds asking_ = 0;  // what `ask` takes, at least
  std::function<bool()> nobody_works_;
  std::atomic<Nanoseconds> spun_{0};
  std::mutex mutex_;  // guards all below
  int depth_ = 0;
  Nanoseconds pause_start_ = 0;
  Nanoseconds paused_total_ = 0;
  Nanoseconds skipped_ = 0;  // by the wall
};

// For tests: time passes only when somebody waits for it, or says so. Between any two questions about
// what a thread has worked lies the same amount of work.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(double slowdown = 1, Nanoseconds work = 0)
      : slowdown_(slowdown), work_(work) {}

  Nanoseconds now() override { return now_.load(); }
  void wait_until(Nanoseconds deadline) override;
  void pause() override {}
  void resume() override {}
  Nanoseconds paused() override { return 0; }
  double slowdown() const override { return slowdown_; }
  Nanoseconds worked() override { return worked_ += work_; }
  void leave_out(Nanoseconds worked) override { worked_ -= worked; }
  void advance(Nanoseconds by) { now_ += by; }

 private:
  const double slowdown_;
  const Nanoseconds work_;
  std::atomic<Nanoseconds> worked_{0};
  std::atomic<Nanoseconds> now_{0};
};

// What the calling thread does while this lives is modelled: it is no work of its own.
class Modelled {
 public:
  explicit Modelled(Clock& clock)
      : clock_(clock.slowdown() > 1 ? &clock : nullptr), before_(clock_ ? clock_->worked() : 0) {}
  ~Modelled() {
    if (clock_) clock_->leave_out(clock_->worked() - before_);
  }
  Modelled(const Modelled&) = delete;
  Modelled& operator=(const Modelled&) = delete;

 private:
  Clock* const clock_;
  const Nanoseconds before_;
};

class Paused {
 public:
  explicit Paused(Clock& clock) : clock_(clock) { clock_.pause(); }
  ~Paused() { clock_.resume(); }
  Paused(const Paused&) = delete;
  Paused& operator=(const Paused&) = delete;

 private:
  Clock& clock_;
};

}  // namespace pipellm
