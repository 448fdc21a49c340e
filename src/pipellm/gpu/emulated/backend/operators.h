// Which aten operator is what on the device.
#pragma once

#include <torch/library.h>

namespace pipellm {

void register_operators();

// Every operator with a kernel for `host` and none for `device`: the former, on aliases.
void register_cpu_kernels(torch::Library& aten, c10::DispatchKey host, c10::DispatchKey device);

}  // namespace pipellm
