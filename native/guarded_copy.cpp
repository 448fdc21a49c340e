#include "guarded_copy.h"

#include <setjmp.h>
#include <signal.h>

#include <array>
#include <cstring>
#include <mutex>

namespace pipellm {

namespace {

thread_local sigjmp_buf* volatile escape = nullptr;

constexpr std::array kSignals = {SIGSEGV, SIGBUS};
std::array<struct sigaction, kSignals.size()> previous;

void on_fault(int signal, siginfo_t* info, void* context) {
  if (escape != nullptr) siglongjmp(*escape, 1);
  const auto& other = previous[signal == SIGSEGV ? 0 : 1];
  if ((other.sa_flags & SA_SIGINFO) != 0) {
    other.sa_sigaction(signal, info, context);
  } else if (other.sa_handler != SIG_DFL && other.sa_handler != SIG_IGN) {
    other.sa_handler(signal);
  } else {
    // The faulting instruction runs again on return, and then the default is done.
    sigaction(signal, &other, nullptr);
  }
}

}  // namespace

bool guarded_copy(void* destination, const void* source, std::size_t nbytes) {
  sigjmp_buf here;
  // The mask is saved: a signal is blocked while its handler runs, and we leave the handler for good.
  if (sigsetjmp(here, 1) != 0) {
    escape = nullptr;
    return false;
  }
  escape = &here;
  std::memcpy(destination, source, nbytes);
  escape = nullptr;
  return true;
}

void guard_copies() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    struct sigaction current {};
    sigaction(kSignals[i], nullptr, &current);
    if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == on_fault) continue;
    previous[i] = current;
    struct sigaction ours {};
    ours.sa_sigaction = on_fault;
    // On the alternate stack where a thread has one, as Python's own fault handler wants.
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    sigaction(kSignals[i], &ours, nullptr);
  }
}

}  // namespace pipellm
