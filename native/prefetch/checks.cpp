#include "prefetch/checks.h"

#include <atomic>

namespace pipellm::prefetch {

Checks::Checks(Below& below, Gates& gates, Pieces& pieces, Readers& readers, NewsBox& news)
    : below_(below), gates_(gates), pieces_(pieces), readers_(readers), news_(news) {}

Checks::~Checks() = default;

void Checks::submit(std::vector<Check> checks, std::shared_ptr<Gate> gate) {
  Job job{std::move(checks), std::move(gate)};
  {
    const std::lock_guard lock(mutex_);
    if (!stop_ && !abandoned_ &&
        thread_.start([this](OwnThread::Self& self) { thread_main(self); })) {
      jobs_.push_back(std::move(job));
      changed_.notify_all();
      return;
    }
  }
  run(std::move(job), nullptr);
}

bool Checks::holds(const Check& check) {
  const auto [first, end] = blocks_touched(*check.piece, check.part);
  std::atomic<bool> same{true};
  readers_.each(end - first, [&, start = first](std::size_t i) {
    if (same && !is_block_unchanged(*check.piece, check.part, start + i)) same = false;
  });
  return same;
}

void Checks::run(Job job, OwnThread::Self* self) {
  for (const Check& check : job.checks) {
    if (holds(check)) continue;
    pieces_.drop(*check.piece);
    news_.add({News::Kind::kChanged, check.part});
    if (self == nullptr) {
      repair(check);
    } else {
      self->waiting([&] { repair(check); });
    }
  }
  job.checks.clear();  // before the gate: who has waited for a copy finds that nobody has its token
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

void Checks::thread_main(OwnThread::Self& self) {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || abandoned_ || !jobs_.empty(); });
    if (abandoned_ || jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    working_ = true;
    lock.unlock();
    run(std::move(job), &self);
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

bool Checks::stop() {
  OwnThread thread;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    thread = std::move(thread_);
    changed_.notify_all();
  }
  return thread.end(kPatience);
}

void Checks::forget_threads() { thread_.forget(); }

}  // namespace pipellm::prefetch
