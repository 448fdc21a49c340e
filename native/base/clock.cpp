#include "base/clock.h"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace pipellm {

namespace {

Nanoseconds monotonic() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return Nanoseconds{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// A sleeping thread wakes late by tens of microseconds, so the last stretch is spun.
constexpr Nanoseconds kSpin = 80'000;

// Who may skip the rest of a wait looks so often whether somebody still works.
constexpr Nanoseconds kLook = 300'000;

void sleep_for(Nanoseconds duration) {
  // The kernel rounds a sleep up by the thread's timer slack, 50 µs unless told otherwise. The
  // thread is the program's: its own setting is put back.
  const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  timespec time{};
  time.tv_sec = duration / 1'000'000'000;
  time.tv_nsec = duration % 1'000'000'000;
  clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
  if (slack > 0) prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}

// Of the calling thread: what does not count as work.
struct Leisure {
  Nanoseconds on_cpu = 0;
  int pauses = 0;  // that it has begun and not ended
  Nanoseconds pause_start = 0;
};
thread_local Leisure leisure;

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Nanoseconds thread_cpu_time() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return Nanoseconds{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

namespace {

Nanoseconds cost_of_asking() {
  Nanoseconds least = std::numeric_limits<Nanoseconds>::max();
  for (int i = 0; i < 1000; ++i) {
    const Nanoseconds before = thread_cpu_time();
    least = std::min(least, thread_cpu_time() - before);
  }
  return least;
}

}  // namespace

Nanoseconds RealClock::paused_at(Nanoseconds time) const {
  return paused_total_ + (depth_ > 0 ? time - pause_start_ : 0);
}

RealClock::RealClock(double slowdown) : slowdown_(slowdown) {
  if (!(slowdown >= 1) || !std::isfinite(slowdown)) {
    throw std::invalid_argument("a clock's slowdown is a number from 1 up");
  }
  if (slowdown > 1) asking_ = cost_of_asking();
}

// A system call, and on a machine that stands for a faster one it counts like other work.
Nanoseconds RealClock::ask() {
  leisure.on_cpu += asking_;
  return thread_cpu_time();
}

Nanoseconds RealClock::emulated(Nanoseconds monotonic) const {
  const auto time = static_cast<double>(monotonic - paused_at(monotonic) + skipped_);
  return static_cast<Nanoseconds>(time / slowdown_);
}

Nanoseconds RealClock::now() {
  const std::lock_guard lock(mutex_);
  return emulated(monotonic());
}

void RealClock::wait_until(Nanoseconds deadline) {
  const auto left = [&] {
    return static_cast<Nanoseconds>(static_cast<double>(deadline - now()) * slowdown_);
  };
  Nanoseconds wall = left();
  if (wall <= 0) return;
  const Nanoseconds start = ask();
  while (!skip_to(deadline) && wall > 2 * kSpin) {
    sleep_for(nobody_works_ ? std::min(wall - kSpin, kLook) : wall - kSpin);
    wall = left();
  }
  while (now() < deadline) relax();
  const Nanoseconds spent = ask() - start - asking_;
  spun_.fetch_add(spent, std::memory_order_relaxed);
  if (leisure.pauses == 0) leisure.on_cpu += spent;
}

bool RealClock::skip_to(Nanoseconds deadline) {
  if (!nobody_works_ || !nobody_works_()) return false;
  const std::lock_guard lock(mutex_);
  const auto missing = static_cast<double>(deadline - emulated(monotonic()));
  if (missing > 0) skipped_ += static_cast<Nanoseconds>(std::ceil(missing * slowdown_));
  return true;
}

Nanoseconds RealClock::worked() {
  const Nanoseconds left_out = leisure.on_cpu;
  return (leisure.pauses > 0 ? leisure.pause_start : ask()) - left_out;
}

void RealClock::leave_out(Nanoseconds worked) { leisure.on_cpu += worked; }

void RealClock::pause() {
  if (slowdown_ > 1 && leisure.pauses++ == 0) leisure.pause_start = ask();
  const std::lock_guard lock(mutex_);
  if (depth_++ == 0) pause_start_ = monotonic();
}

void RealClock::resume() {
  {
    const std::lock_guard lock(mutex_);
    if (--depth_ == 0) paused_total_ += monotonic() - pause_start_;
  }
  if (slowdown_ > 1 && --leisure.pauses == 0) {
    leisure.on_cpu += ask() - leisure.pause_start - asking_;
  }
}

Nanoseconds RealClock::paused() {
  const std::lock_guard lock(mutex_);
  return paused_at(monotonic());
}

void ManualClock::wait_until(Nanoseconds deadline) {
  Nanoseconds seen = now_.load();
  while (seen < deadline && !now_.compare_exchange_weak(seen, deadline)) {
  }
}

}  // namespace pipellm
