// CUDA's softmax kernels and matrix products take half precision in and give single precision out, in
// one kernel; the CPU's refuse that. These convert first, and otherwise are the CPU's.
#pragma once

#include <ATen/core/Tensor.h>

namespace pipellm {

at::Tensor softmax(const at::Tensor& self, int64_t dim, bool half_to_float);
at::Tensor log_softmax(const at::Tensor& self, int64_t dim, bool half_to_float);
at::Tensor softmax_backward(const at::Tensor& gradient, const at::Tensor& output, int64_t dim,
                            at::ScalarType input_type);
at::Tensor log_softmax_backward(const at::Tensor& gradient, const at::Tensor& output, int64_t dim,
                                at::ScalarType input_type);

// mm, bmm, addmm and baddbmm with an `out_dtype`.
at::Tensor mm(const at::Tensor& self, const at::Tensor& other, at::ScalarType type);
at::Tensor bmm(const at::Tensor& self, const at::Tensor& other, at::ScalarType type);
at::Tensor addmm(const at::Tensor& self, const at::Tensor& a, const at::Tensor& b,
                 at::ScalarType type, const at::Scalar& beta, const at::Scalar& alpha);
at::Tensor baddbmm(const at::Tensor& self, const at::Tensor& a, const at::Tensor& b,
                   at::ScalarType type, const at::Scalar& beta, const at::Scalar& alpha);
// Their out= operators.
at::Tensor& mm_out(const at::Tensor& self, const at::Tensor& other, at::ScalarType type,
                   at::Tensor& out);
at::Tensor& bmm_out(const at::Tensor& self, const at::Tensor& other, at::ScalarType type,
                    at::Tensor& out);
at::Tensor& addmm_out(const at::Tensor& self, const at::Tensor& a, const at::Tensor& b,
                      at::ScalarType type, const at::Scalar& beta, const at::Scalar& alpha,
                      at::Tensor& out);
at::Tensor& baddbmm_out(const at::Tensor& self, const at::Tensor& a, const at::Tensor& b,
                        at::ScalarType type, const at::Scalar& beta, const at::Scalar& alpha,
                        at::Tensor& out);

}  // namespace pipellm
