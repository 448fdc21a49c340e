#include "base/fork.h"

#include <pthread.h>

#include <mutex>

namespace pipellm {

namespace {

// Leaked on purpose: objects may be destroyed after static destructors have run.
std::mutex& registry_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}
ForkAware* head = nullptr;

}  // namespace

ForkAware::ForkAware() {
  static std::once_flag once;
  std::call_once(once, [] {
    // The registry itself is whole in the child because fork waits for its lock.
    pthread_atfork([] { registry_mutex().lock(); }, [] { registry_mutex().unlock(); },
                   [] {
                     registry_mutex().unlock();
                     ForkAware::run_in_child();
                   });
  });
  const std::lock_guard lock(registry_mutex());
  next_ = head;
  if (head != nullptr) head->previous_ = this;
  head = this;
}

ForkAware::~ForkAware() {
  const std::lock_guard lock(registry_mutex());
  if (previous_ != nullptr) previous_->next_ = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  if (head == this) head = next_;
}

void ForkAware::run_in_child() noexcept {
  for (ForkAware* object = head; object != nullptr; object = object->next_) {
    object->after_fork_in_child();
  }
}

}  // namespace pipellm
