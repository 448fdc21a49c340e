#include "base/pool.h"

#include <system_error>

namespace pipellm {

Pool::Pool(std::size_t threads) : size_(threads), state_(new State) {}

Pool::~Pool() {
  stop();
  delete state_;
}

void Pool::stop() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->frozen = false;
    threads.swap(state_->threads);
  }
  state_->work.notify_all();
  for (std::thread& thread : threads) thread.join();
}

bool Pool::submit(Job job) { return submit_to(&State::jobs, std::move(job)); }

bool Pool::submit_urgent(Job job) { return submit_to(&State::urgent, std::move(job)); }

bool Pool::submit_to(std::deque<Job> State::*queue, Job job) {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stop || !start_threads()) return false;
    (state_->*queue).push_back(std::move(job));
  }
  state_->work.notify_one();
  return true;
}

bool Pool::start_threads() {
  try {
    while (state_->threads.size() < size_) {
      state_->threads.emplace_back(thread_main, std::ref(*state_), std::ref(cpu_time_));
    }
  } catch (const std::system_error&) {
    // No more than these, for now.
  }
  return !state_->threads.empty();
}

void Pool::wait_idle() {
  std::unique_lock lock(state_->mutex);
  state_->idle.wait(lock, [this] { 
    return state_->urgent.empty() && state_->jobs.empty() && state_->running == 0;
  });
}

bool Pool::idle() const {
  const std::lock_guard lock(state_->mutex);
  return state_->urgent.empty() && state_->jobs.empty() && state_->running == 0;
}

void Pool::freeze() {
  std::unique_lock lock(state_->mutex);
  state_->frozen = true;
  state_->idle.wait(lock, [this] { return state_->running == 0; });
}

void Pool::thaw() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->frozen = false;
  }
  state_->work.notify_all();
}

void Pool::thread_main(State& state, std::atomic<Nanoseconds>& cpu_time) {
  std::unique_lock lock(state.mutex);
  for (;;) {
    state.work.wait(lock, [&] {
      return !state.frozen && (state.stop || !state.urgent.empty() || !state.jobs.empty());
    });
    std::deque<Job>& queue = state.urgent.empty() ? state.jobs : state.urgent;
    if (queue.empty()) return;
    Job job = std::move(queue.front());
    queue.pop_front();
    ++state.running;
    lock.unlock();
    const Nanoseconds start = thread_cpu_time();
    job();
    job = nullptr;
    cpu_time.fetch_add(thread_cpu_time() - start, std::memory_order_relaxed);
    lock.lock();
    if (--state.running == 0 &&
        (state.frozen || (state.urgent.empty() && state.jobs.empty()))) {
      state.idle.notify_all();
    }
  }
}

void Pool::after_fork_in_child() noexcept {
  // Leaked: its lock may be taken for ever, and its thread handles must not be joined.
  state_ = new State;
}

}  // namespace pipellm
