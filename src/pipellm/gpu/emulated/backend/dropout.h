// aten::native_dropout, drawing from the device's generator (the CPU's kernel would draw from the
// CPU's, having no argument to be told otherwise).
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace pipellm {

// Returns (output, mask).
std::tuple<at::Tensor, at::Tensor> dropout(const at::Tensor& input, double probability,
                                           std::optional<bool> train);

}  // namespace pipellm
