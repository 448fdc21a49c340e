#include "prefetch/checks.h"

namespace pipellm::prefetch {

Checks::Checks(Below& below, Gates& gates, Pieces& pieces, NewsBox& news)
    : below_(below), gates_(gates), pieces_(pieces), news_(news) {}

Checks::~Checks() = default;

void Checks::submit(std::vector<Check> checks, std::shared_ptr<Gate> gate) {
  Job job{std::move(checks), std::move(gate)};
  {
    const std::lock_guard lock(mutex_);
    if (!stop_ && !abandoned_ && thread_ == nullptr) {
      try {
        thread_ = std::make_unique<std::thread>([this] { thread_main(); });
      } catch (const std::exception&) {
      }
    }
    if (thread_ != nullptr && !abandoned_) {
      jobs_.push_back(std::move(job));
      changed_.notify_all();
      return;
    }
  }
  run(job);
}

void Checks::run(const Job& job) {
  for (const Check& check : job.checks) {
    if (is_unchanged(*check.piece, check.part)) continue;
    pieces_.drop(*check.piece);
    news_.add({News::Kind::kStale, check.piece->host});
    repair(check);
  }
  gates_.pass(*job.gate, stream_);
}

void Checks::repair(const Check& check) {
  const PipellmDriver& table = below_.table();
  for (const auto& flight : check.before) {
    if (flight->event == nullptr) continue;
    below_.noted(table.event_synchronize(table.self, flight->event));
  }
  if (check.piece->gate != nullptr) gates_.wait(*check.piece->gate, stream_);
  below_.copy(PIPELLM_H2D, check.piece->at(check.part), check.part.data(), check.part.nbytes,
              /*asynchronous=*/true, stream_);
}

void Checks::thread_main() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || abandoned_ || !jobs_.empty(); });
    if (abandoned_ || jobs_.empty()) return;
    {
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      working_ = true;
      lock.unlock();
      run(job);
    }
    lock.lock();
    working_ = false;
    changed_.notify_all();
  }
}

bool Checks::idle() {
  const std::lock_guard lock(mutex_);
  return !working_ && jobs_.empty();
}

void Checks::abandon() {
  std::deque<Job> jobs;
  std::unique_lock lock(mutex_);
  abandoned_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !working_; });
  jobs.swap(jobs_);
  lock.unlock();
}

void Checks::stop() {
  std::unique_ptr<std::thread> thread;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    thread = std::move(thread_);
    changed_.notify_all();
  }
  if (thread != nullptr) thread->join();
}

void Checks::forget_threads() { (void)thread_.release(); }

}  // namespace pipellm::prefetch
