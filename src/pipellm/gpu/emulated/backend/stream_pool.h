// Streams are handed out round robin from a fixed pool per device and priority, as c10::cuda does:
// programs that make a stream per step would otherwise leak one per step.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace pipellm {

// A stream of `device`; `priority` < 0 means high, as in CUDA.
int64_t pooled_stream(c10::DeviceIndex device, int priority);

// 0, or -1 for a stream of the high-priority pool.
int stream_priority(c10::DeviceIndex device, int64_t stream);

}  // namespace pipellm
