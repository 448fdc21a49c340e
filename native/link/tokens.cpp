#include "link/tokens.h"

namespace pipellm {

void Tokens::hold(void (*release)(void*), void* token, const Progress& until) {
  if (release == nullptr) return;
  const std::lock_guard lock(mutex_);
  held_.push_back({release, token, until});
  any_.store(true, std::memory_order_relaxed);
}

void Tokens::let_go(const Progress& reached) {
  std::deque<Held> done;
  {
    const std::lock_guard lock(mutex_);
    for (auto held = held_.begin(); held != held_.end();) {
      if (held->until.command <= reached.command && held->until.receipt <= reached.receipt) {
        done.push_back(*held);
        held = held_.erase(held);
      } else {
        ++held;
      }
    }
    any_.store(!held_.empty(), std::memory_order_relaxed);
  }
  for (const Held& held : done) held.release(held.token);
}

}  // namespace pipellm
