#include "prefetch/own_thread.h"

#include <system_error>
#include <utility>

namespace pipellm::prefetch {

void OwnThread::Self::set_waits(bool waits) {
  const std::lock_guard lock(mutex_);
  waits_ = waits;
  changed_.notify_all();
}

bool OwnThread::start(std::function<void(Self&)> main) {
  if (thread_ != nullptr) return true;
  auto self = std::make_shared<Self>();
  try {
    thread_ = std::make_unique<std::thread>([self, main = std::move(main)] {
      main(*self);
      const std::lock_guard lock(self->mutex_);
      self->ended_ = true;
      self->changed_.notify_all();
    });
  } catch (const std::system_error&) {
    return false;
  }
  self_ = std::move(self);
  return true;
}

bool OwnThread::end(std::chrono::milliseconds patience) {
  if (thread_ == nullptr) return true;
  const auto deadline = std::chrono::steady_clock::now() + patience;
  bool ended = false;
  {
    std::unique_lock lock(self_->mutex_);
    while (!(ended = self_->ended_)) {
      if (!self_->waits_) {
        self_->changed_.wait(lock);
      } else if (self_->changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        break;
      }
    }
  }
  if (ended) {
    thread_->join();
  } else {
    thread_->detach();
  }
  thread_.reset();
  return ended;
}

}  // namespace pipellm::prefetch
