// aten::histc of integers, which CUDA counts and the CPU refuses; of other types it is the CPU's.
#pragma once

#include <ATen/core/Tensor.h>

namespace pipellm {

at::Tensor histc(const at::Tensor& self, int64_t bins, const at::Scalar& min, const at::Scalar& max);
at::Tensor& histc_out(const at::Tensor& self, int64_t bins, const at::Scalar& min,
                      const at::Scalar& max, at::Tensor& out);

}  // namespace pipellm
