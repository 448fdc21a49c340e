// Signals arrive all the time, and interrupt whatever waits.
#include <sys/time.h>

#include <csignal>

#include "testing/stress.h"

namespace pipellm::stress {

namespace {

std::atomic<int> arrived{0};

}  // namespace

void signals() {
  struct sigaction action {}, before {};
  action.sa_handler = [](int) { ++arrived; };
  sigaction(SIGALRM, &action, &before);  // without SA_RESTART: calls return early
  const itimerval every{{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &every, nullptr);
  for (const Way way : kWays) {
    Gpu gpu(way);
    copy_from_many_threads(gpu, 4);
    require(gpu.synchronize() == PIPELLM_OK, gpu.last_error());
    require(gpu.held() == 0, "a token was not released once");
  }
  const itimerval never{};
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  require(arrived > 0, "no signal came");
}

}  // namespace pipellm::stress
