#include "memory/arena.h"

#include <sys/mman.h>

#include <new>

namespace pipellm {

Arena::Arena(std::size_t messages) : messages_(messages) {
  void* mapping = mmap(nullptr, messages_ * sizeof(SealedMessage), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  (void)madvise(mapping, messages_ * sizeof(SealedMessage), MADV_HUGEPAGE);
  (void)madvise(mapping, messages_ * sizeof(SealedMessage), MADV_DONTFORK);
  mapping_ = static_cast<SealedMessage*>(mapping);
  for (std::size_t i = messages_; i-- > 0;) free_.push_back(mapping_ + i);
}

Arena::~Arena() { munmap(mapping_, messages_ * sizeof(SealedMessage)); }

SealedMessage* Arena::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return nullptr;
  SealedMessage* message = free_.back();
  free_.pop_back();
  return message;
}

void Arena::give_back(SealedMessage* message) {
  const std::lock_guard lock(mutex_);
  free_.push_back(message);
}

std::size_t Arena::in_use() const {
  const std::lock_guard lock(mutex_);
  return messages_ - free_.size();
}

}  // namespace pipellm
