#include "emulator/copy_engine.h"

#include <cstring>

namespace pipellm {

namespace {

// Reading a thread's clock is a system call, and costs more than moving less than this.
constexpr std::uint64_t kTimedBytes = 64 * 1024;

}  // namespace

std::string authentication_failure(Direction direction, std::uint32_t number) {
  return std::string("authentication failed: ") + direction_name(direction) + " message " +
         std::to_string(number) +
         " is not what its sender sealed; the context is lost, restart the program";
}

CopyEngine::CopyEngine(Clock& clock, Counters& counters, std::unique_ptr<SecureChannel> device_side)
    : clock_(clock), counters_(counters), device_side_(std::move(device_side)) {}

CopyEngine::~CopyEngine() { stop_thread(); }

void CopyEngine::discard() {
  std::unique_lock lock(mutex_);
  // Threads of others may still submit: what was opened makes room for what is to arrive next.
  if (lost_.empty()) lost_ = "the device is being closed";
  drop_queue();
  finished_.wait(lock, [this] { return !running_; });
  completed_ = submitted_;
}

void CopyEngine::stop_thread() {
  std::unique_ptr<std::thread> thread;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    thread = std::move(thread_);
  }
  queued_.notify_all();
  if (thread != nullptr) thread->join();
}

Sequence CopyEngine::submit(Command command, bool wake) {
  Sequence sequence = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!lost_.empty()) throw ContextLost(lost_);
    const std::uint64_t nbytes = command.nbytes;
    queue_.push_back(std::move(command));
    queued_bytes_ += nbytes;
    sequence = ++submitted_;
    if (wake) woken_ = sequence;
    if (wake && thread_ == nullptr && !stop_) start_thread();
  }
  if (wake) {
    const Paused paused(clock_);  // what a doorbell costs is in the toll
    queued_.notify_one();
  }
  return sequence;
}

// With the lock. Without a thread, who waits does the work.
void CopyEngine::start_thread() {
  try {
    thread_ = std::make_unique<std::thread>([this] { thread_main(); });
  } catch (const std::exception&) {
  }
}

Sequence CopyEngine::submitted() {
  const std::lock_guard lock(mutex_);
  return submitted_;
}

Sequence CopyEngine::completed() {
  const std::lock_guard lock(mutex_);
  return completed_;
}

bool CopyEngine::idle() {
  const std::lock_guard lock(mutex_);
  return !running_ && completed_ >= woken_;
}

bool CopyEngine::lost() {
  const std::lock_guard lock(mutex_);
  return !lost_.empty();
}

void CopyEngine::settle() {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return !running_; });
}

void CopyEngine::lose(const std::string& why) {
  const std::lock_guard lock(mutex_);
  lose_locked(why);
}

void CopyEngine::lose_to_forgery(Direction direction, std::uint32_t number) {
  const std::lock_guard lock(mutex_);
  if (lost_.empty()) counters_.add(Counter::kAuthFailures, 1);
  lose_locked(authentication_failure(direction, number));
}

void CopyEngine::lose_locked(const std::string& why) {
  if (!lost_.empty()) return;
  lost_ = why;
  drop_queue();
  // What is running still reads and writes memory: it is over when it is.
  if (!running_) completed_ = submitted_;
  finished_.notify_all();
}

void CopyEngine::set_tap(Tap tap) {
  const std::lock_guard lock(mutex_);
  tap_.swap(tap);  // the old one goes without the lock: Python's needs the GIL for that
}

void CopyEngine::wait(Sequence sequence) {
  std::unique_lock lock(mutex_);
  work_while(lock, [&] { return completed_ < sequence; });
}

void CopyEngine::make_room(std::uint64_t nbytes) {
  std::unique_lock lock(mutex_);
  work_while(lock, [&] { return queued_bytes_ > nbytes; });
}

// The calling thread plays the engine, or waits for who does, while there is something `pending`.
template <typename Pending>
void CopyEngine::work_while(std::unique_lock<std::mutex>& lock, Pending pending) {
  if (pending() && lost_.empty()) {
    const Paused paused(clock_);
    while (pending() && lost_.empty()) {
      if (running_) {
        finished_.wait(lock);
      } else {
        run_front(lock);
      }
    }
  }
  if (!lost_.empty()) throw ContextLost(lost_);
}

// With the lock. What is running stays.
void CopyEngine::drop_queue() {
  for (const Command& command : queue_) queued_bytes_ -= command.nbytes;
  queue_.clear();
}

void CopyEngine::thread_main() {
  std::unique_lock lock(mutex_);
  for (;;) {
    queued_.wait(lock, [this] { return stop_ || (!queue_.empty() && !running_); });
    if (stop_) return;
    run_front(lock);
  }
}

void CopyEngine::run_front(std::unique_lock<std::mutex>& lock) {
  const Command command = std::move(queue_.front());
  queue_.pop_front();
  Tap tap = tap_;
  running_ = true;
  lock.unlock();
  std::string failure;
  std::optional<std::uint32_t> forged;
  const bool timed = command.nbytes >= kTimedBytes;
  const Nanoseconds start = timed ? thread_cpu_time() : 0;
  try {
    forged = execute(command, tap);
    if (!forged && command.done) command.done();
  } catch (const std::exception& error) {
    failure = std::string("the copy engine failed: ") + error.what() +
              "; the context is lost, restart the program";
  }
  if (forged) lose_to_forgery(command.direction, *forged);
  if (timed) cpu_time_.fetch_add(thread_cpu_time() - start, std::memory_order_relaxed);
  tap = nullptr;  // possibly the last reference
  lock.lock();
  running_ = false;
  queued_bytes_ -= command.nbytes;
  ++completed_;
  if (!failure.empty()) lose_locked(failure);
  if (!lost_.empty()) completed_ = submitted_;
  finished_.notify_all();
  if (!queue_.empty()) queued_.notify_one();
}

std::optional<std::uint32_t> CopyEngine::execute(const Command& command, const Tap& tap) {
  const auto nbytes = static_cast<std::size_t>(command.nbytes);
  if (command.within) {
    command.within();
    return std::nullopt;
  }
  if (command.slot == nullptr) {
    if (command.direction == kH2d) {
      std::memcpy(command.device, command.host, nbytes);
    } else {
      std::memcpy(command.host, command.device, nbytes);
    }
    return std::nullopt;
  }
  BounceSlot& slot = *command.slot;
  if (command.direction == kH2d) {
    Endpoint& endpoint = device_side_->h2d;
    const std::uint32_t number = endpoint.next();
    if (tap) tap(kH2d, number, slot);
    if (!endpoint.open(number, {slot.ciphertext, nbytes}, command.device, slot.tag)) return number;
  } else {
    Endpoint& endpoint = device_side_->d2h;
    const std::uint32_t number = endpoint.next();
    endpoint.seal(number, {command.device, nbytes}, slot.ciphertext, slot.tag);
    slot.iv = endpoint.iv(number);
    slot.nbytes = static_cast<std::uint32_t>(nbytes);
    if (tap) tap(kD2h, number, slot);
  }
  return std::nullopt;
}

}  // namespace pipellm
