// The timer that DistributedDataParallel takes its statistics with.
#pragma once

namespace pipellm {

// A CPU build of torch has none for CUDA, and asserts one in the second iteration.
void register_reducer_timer();

}  // namespace pipellm
