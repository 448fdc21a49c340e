#include "prefetch/readers.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

namespace pipellm::prefetch {

namespace {

// For fewer calls no other thread is asked: to wake it takes as long.
constexpr std::size_t kEach = 4;

struct Task {
  const std::size_t count;
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::condition_variable over;
  const std::function<void(std::size_t)>* body;  // guarded: nullptr once all calls have begun
  std::size_t helping = 0;                       // guarded

  void work(const std::function<void(std::size_t)>& call) {
    for (std::size_t i = next++; i < count; i = next++) call(i);
  }
};

void help(Task& task) {
  const std::function<void(std::size_t)>* body = nullptr;
  {
    const std::lock_guard lock(task.mutex);
    body = task.body;
    if (body == nullptr) return;
    ++task.helping;
  }
  task.work(*body);
  const std::lock_guard lock(task.mutex);
  if (--task.helping == 0) task.over.notify_one();
}

}  // namespace

void Readers::each(std::size_t count, const std::function<void(std::size_t)>& body) {
  const std::size_t helpers = std::min(pool_.threads(), count / kEach);
  if (helpers == 0) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
  const auto task = std::make_shared<Task>(count);
  task->body = &body;
  for (std::size_t i = 0; i < helpers; ++i) {
    if (!pool_.submit([task] { help(*task); })) break;
  }
  task->work(body);
  std::unique_lock lock(task->mutex);
  task->body = nullptr;  // who comes late finds nothing
  task->over.wait(lock, [&] { return task->helping == 0; });
}

}  // namespace pipellm::prefetch
