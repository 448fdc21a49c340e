#include "prefetch/below.h"

#include "link/status.h"

namespace pipellm::prefetch {

void Fault::set(int status, const char* text) {
  const std::lock_guard lock(mutex_);
  if (status_ == PIPELLM_CONTEXT_LOST) return;
  if (status_ != PIPELLM_OK && status != PIPELLM_CONTEXT_LOST) return;
  text_ = text;
  status_.store(status, std::memory_order_release);
}

int Fault::tell() {
  if (status() == PIPELLM_OK) return PIPELLM_OK;
  std::string text;
  int told = PIPELLM_OK;
  {
    const std::lock_guard lock(mutex_);
    told = status_;
    text = text_;
    if (told != PIPELLM_CONTEXT_LOST) status_.store(PIPELLM_OK, std::memory_order_release);
  }
  return told == PIPELLM_OK ? told : refused(static_cast<PipellmStatus>(told), text.c_str());
}

Below::~Below() {
  for (void* const event : events_) table_.event_destroy(table_.self, event);
}

int Below::try_copy(PipellmDirection direction, void* destination, const void* source,
                    std::uint64_t nbytes, bool asynchronous, std::int64_t stream) {
  const PipellmCopy request{device_, direction,    destination, source,  nbytes,
                            asynchronous ? 1 : 0, 0,           stream, nullptr, nullptr};
  const int status = table_.copy(table_.self, &request);
  return status == PIPELLM_CONTEXT_LOST ? noted(status) : status;
}

int Below::copy(PipellmDirection direction, void* destination, const void* source,
                std::uint64_t nbytes, bool asynchronous, std::int64_t stream) {
  return noted(try_copy(direction, destination, source, nbytes, asynchronous, stream));
}

int Below::noted(int status) {
  if (status != PIPELLM_OK && status != PIPELLM_NOT_READY) {
    fault_.set(status, table_.last_error(table_.self));
  }
  return status;
}

void* Below::take_event() {
  {
    const std::lock_guard lock(mutex_);
    if (!events_.empty()) {
      void* const event = events_.back();
      events_.pop_back();
      return event;
    }
  }
  void* event = nullptr;
  if (noted(table_.event_create(table_.self, device_, &event)) != PIPELLM_OK) return nullptr;
  return event;
}

void Below::give_event(void* event) {
  const std::lock_guard lock(mutex_);
  events_.push_back(event);
}

bool Below::is_over(void* event) {
  return noted(table_.event_query(table_.self, event)) != PIPELLM_NOT_READY;
}

}  // namespace pipellm::prefetch
