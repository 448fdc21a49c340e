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
    if (!read_ || news_.size() >= kMost || says_nothing_new(news)) return;
    news_.push_back(news);
    // To wake a thread takes microseconds of the program's.
    if (listens_ && is_enough()) come_.notify_one();
  }

  // Returns when there are many, when the program waits, or after `most` nanoseconds; not before `least`
  // have passed, unless `wake` was called.
  std::vector<News> wait(std::int64_t least, std::int64_t most) {
    std::unique_lock lock(mutex_);
    read_ = true;
    const auto roused = [this] { return closed_ || woken_; };
    if (least > 0) come_.wait_for(lock, std::chrono::nanoseconds(least), roused);
    listens_ = true;
    come_.wait_for(lock, std::chrono::nanoseconds(most - least),
                   [&] { return roused() || is_enough(); });
    listens_ = false;
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

  // Who polls waits again and again.
  bool says_nothing_new(const News& news) const {
    return news.kind == News::Kind::kSynchronize && !news_.empty() &&
           news_.back().kind == news.kind && news_.back().stream == news.stream;
  }

  bool is_enough() const {
    return news_.size() >= kBatch ||
           (!news_.empty() && news_.back().kind == News::Kind::kSynchronize);
  }

  std::mutex mutex_;
  std::condition_variable come_;
  std::vector<News> news_;
  bool read_ = false, listens_ = false, woken_ = false, closed_ = false;
};

}  // namespace pipellm::prefetch
