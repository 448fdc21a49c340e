// Where news wait for a planner. Nothing is kept before one has asked for the first time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "prefetch/orders.h"

namespace pipellm::prefetch {

// Internally locked.
class NewsBox {
 public:
  void add(const News& news) {
    const std::lock_guard lock(mutex_);
    if (!read_ || news_.size() >= kMost) return;
    news_.push_back(news);
    if (news_.size() >= kBatch || news.kind == News::Kind::kSynchronize) come_.notify_one();
  }

  // Returns when there are many, when the program waits, when `wake` was called, or after so many
  // nanoseconds.
  std::vector<News> wait(std::int64_t nanoseconds) {
    std::unique_lock lock(mutex_);
    read_ = true;
    come_.wait_for(lock, std::chrono::nanoseconds(nanoseconds), [this] {
      return closed_ || woken_ || news_.size() >= kBatch ||
             (!news_.empty() && news_.back().kind == News::Kind::kSynchronize);
    });
    woken_ = false;
    return std::exchange(news_, {});
  }

  void wake() {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    come_.notify_all();
  }

  bool empty() {
    const std::lock_guard lock(mutex_);
    return news_.empty();
  }

  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    come_.notify_all();
  }

 private:
  static constexpr std::size_t kBatch = 64;
  static constexpr std::size_t kMost = 1 << 16;  // what a planner misses costs time only

  std::mutex mutex_;
  std::condition_variable come_;
  std::vector<News> news_;
  bool read_ = false, woken_ = false, closed_ = false;
};

}  // namespace pipellm::prefetch
