#include "cudart/worker.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>

namespace pipellm::cudart {

namespace {

// Between two looks at events that the device has not come to. A copy that is worth staging takes
// longer than the shortest, and nobody is late by more than the longest.
constexpr std::chrono::microseconds kShortest{5}, kLongest{100};

}  // namespace

Worker::Worker(int device, Supplies& supplies, Owed& owed, Owed& writes)
    : device_(device), supplies_(supplies), owed_(owed), writes_(writes) {
  sigset_t all, before;  // signals are the program's
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Worker::submit(Errand errand) {
  {
    const std::lock_guard lock(mutex_);
    new_.push_back(std::move(errand));
  }
  submitted_.notify_one();
}

void Worker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  submitted_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Worker::run() {
  cuda::set_device(device_);
  const cuda::CaptureRelaxed relaxed;
  std::deque<Errand> waiting;
  auto pause = kShortest;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      const auto news = [&] { return stop_ || !new_.empty(); };
      if (waiting.empty()) {
        submitted_.wait(lock, news);
      } else {
        submitted_.wait_for(lock, pause, news);
      }
      if (stop_) {
        std::move(new_.begin(), new_.end(), std::back_inserter(waiting));
        break;
      }
      if (!new_.empty()) pause = kShortest;
      std::move(new_.begin(), new_.end(), std::back_inserter(waiting));
      new_.clear();
    }
    const auto left = std::remove_if(waiting.begin(), waiting.end(), [&](Errand& errand) {
      if (!ready(errand)) return false;
      perform(errand);
      return true;
    });
    pause = left == waiting.end() ? std::min(2 * pause, kLongest) : kShortest;
    waiting.erase(left, waiting.end());
  }
  for (const Errand& errand : waiting) {
    if (errand.kind == Errand::Kind::kCopy) owed_.arrive(*errand.arrival, kCudartUnloading);
    if (errand.kind == Errand::Kind::kWritten) writes_.arrive(*errand.arrival, kSuccess);
  }
}

bool Worker::ready(const Errand& errand) {
  if (errand.kind == Errand::Kind::kCopy) {
    for (const auto& earlier : errand.arrival->after) {
      if (!owed_.arrived(*earlier)) return false;
    }
  }
  // Whatever is not "not yet", an error too, ends the waiting.
  return cuda::event_query(errand.event) != kNotReady;
}

void Worker::perform(Errand& errand) {
  switch (errand.kind) {
    case Errand::Kind::kGiveBack: return supplies_.to_device.give_back(errand.blocks);
    case Errand::Kind::kCopy: return copy(errand);
    case Errand::Kind::kWritten:
      supplies_.events.give_back(errand.event);
      return writes_.arrive(*errand.arrival, kSuccess);
  }
}

void Worker::copy(Errand& errand) {
  Staging& staging = supplies_.to_host;
  Arrival& arrival = *errand.arrival;
  auto* to = reinterpret_cast<char*>(arrival.destination);
  std::size_t left = arrival.nbytes;
  Error error = kSuccess;
  for (const Block* block : errand.blocks) {
    const std::size_t part = std::min(left, kBlockBytes);
    if (error == kSuccess) {
      error = cuda::memcpy_async(to, block->memory, part, kDeviceToHost, staging.stream());
    }
    to += part;
    left -= part;
  }
  // A copy that did start must be over before the block is anybody else's, whatever became of others.
  const Error end = cuda::stream_synchronize(staging.stream());
  staging.give_back(errand.blocks);
  owed_.arrive(arrival, error != kSuccess ? error : end);
}

}  // namespace pipellm::cudart
