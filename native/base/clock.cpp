#include "base/clock.h"

#include <sys/prctl.h>
#include <time.h>

namespace pipellm {

namespace {

Nanoseconds monotonic() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return Nanoseconds{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// A sleeping thread wakes late by tens of microseconds, so the last stretch is spun.
constexpr Nanoseconds kSpin = 80'000;

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

Nanoseconds RealClock::paused_at(Nanoseconds time) const {
  return paused_total_ + (depth_ > 0 ? time - pause_start_ : 0);
}

Nanoseconds RealClock::now() {
  const std::lock_guard lock(mutex_);
  const Nanoseconds time = monotonic();
  return time - paused_at(time);
}

void RealClock::wait_until(Nanoseconds deadline) {
  Nanoseconds left = deadline - now();
  while (left > 2 * kSpin) {
    sleep_for(left - kSpin);
    left = deadline - now();
  }
  if (left <= 0) return;
  const Nanoseconds start = thread_cpu_time();
  while (now() < deadline) relax();
  spun_.fetch_add(thread_cpu_time() - start, std::memory_order_relaxed);
}

void RealClock::pause() {
  const std::lock_guard lock(mutex_);
  if (depth_++ == 0) pause_start_ = monotonic();
}

void RealClock::resume() {
  const std::lock_guard lock(mutex_);
  if (--depth_ == 0) paused_total_ += monotonic() - pause_start_;
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
