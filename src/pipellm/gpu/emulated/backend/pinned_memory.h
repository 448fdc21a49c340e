// Pinned host memory (cudaHostAlloc), from the driver.
#pragma once

#include <c10/core/Allocator.h>

namespace pipellm {

c10::Allocator* pinned_allocator();

}  // namespace pipellm
