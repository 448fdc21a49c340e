#include "pool.h"

namespace pipellm {

Pool::Pool(std::size_t threads) : size_(threads), state_(new State) {}

Pool::~Pool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->work.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
  delete state_;
}

void Pool::submit(Job job) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->jobs.push_back(std::move(job));
    while (state_->threads.size() < size_) {
      state_->threads.emplace_back(thread_main, std::ref(*state_));
    }
  }
  state_->work.notify_one();
}

void Pool::wait_idle() {
  std::unique_lock lock(state_->mutex);
  state_->idle.wait(lock, [this] { return state_->jobs.empty() && state_->running == 0; });
}

void Pool::thread_main(State& state) {
  std::unique_lock lock(state.mutex);
  for (;;) {
    state.work.wait(lock, [&] { return state.stop || !state.jobs.empty(); });
    if (state.jobs.empty()) return;
    Job job = std::move(state.jobs.front());
    state.jobs.pop_front();
    ++state.running;
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
    if (--state.running == 0 && state.jobs.empty()) state.idle.notify_all();
  }
}

void Pool::after_fork_in_child() noexcept {
  // Leaked: its lock may be taken for ever, and its thread handles must not be joined.
  state_ = new State;
}

}  // namespace pipellm
