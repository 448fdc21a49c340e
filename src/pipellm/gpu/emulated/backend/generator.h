// The devices' random number generators. Operators run as CPU kernels, so a device's generator is a
// CPU generator that says it is a CUDA one: its own stream of numbers, apart from the CPU's.
#pragma once

#include <ATen/core/Generator.h>

namespace pipellm {

const at::Generator& default_generator(c10::DeviceIndex device);
at::Generator new_generator(c10::DeviceIndex device);

// The CPU generator inside a CUDA one, for a CPU kernel to draw from. Throws for a generator of
// another device, as CUDA kernels do.
at::Generator host_generator(const at::Generator& generator);

}  // namespace pipellm
