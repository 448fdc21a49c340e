// CUDA_VISIBLE_DEVICES: which of the driver's devices the program may use.
#pragma once

namespace pipellm {

// How many of `devices` GPUs that value of the variable leaves (nullptr: it is not set). As PyTorch
// says that CUDA reads it: numbers, up to the first that no GPU has; none if a number comes twice.
// Which they are makes no difference: emulated GPUs are all alike.
int count_visible(const char* variable, int devices);

}  // namespace pipellm
