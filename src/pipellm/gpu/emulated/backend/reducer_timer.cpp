#include "reducer_timer.h"

#include <torch/csrc/distributed/c10d/reducer_timer.hpp>

namespace pipellm {

void register_reducer_timer() {
  // The host's: operators run when they are launched.
  c10d::TimerRegistry()->Register(c10::kCUDA, [](c10::Device) {
    return c10d::TimerRegistry()->Create(c10::kCPU, c10::Device(c10::kCPU));
  });
}

}  // namespace pipellm
