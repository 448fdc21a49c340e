// CUDA's softmax kernels take half precision in and give single precision out, in one kernel; the
// CPU's refuse that. These convert first, and otherwise are the CPU's.
#pragma once

#include <ATen/core/Tensor.h>

namespace pipellm {

at::Tensor softmax(const at::Tensor& self, int64_t dim, bool half_to_float);
at::Tensor log_softmax(const at::Tensor& self, int64_t dim, bool half_to_float);
at::Tensor softmax_backward(const at::Tensor& gradient, const at::Tensor& output, int64_t dim,
                            at::ScalarType input_type);
at::Tensor log_softmax_backward(const at::Tensor& gradient, const at::Tensor& output, int64_t dim,
                                at::ScalarType input_type);

}  // namespace pipellm
