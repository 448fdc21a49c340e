#include "mixed_precision.h"

#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/_log_softmax_backward_data.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

namespace pipellm {

namespace {

using at::Tensor;

// `forward` is an out= operator; those have no special kernel here and run as the CPU's.
template <typename Forward>
Tensor run_forward(Forward forward, const Tensor& self, int64_t dim, bool half_to_float) {
  const Tensor input = half_to_float ? self.to(at::kFloat) : self;
  Tensor output = at::empty_like(input, at::MemoryFormat::Contiguous);
  forward(output, input, dim, /*half_to_float=*/false);
  return output;
}

template <typename Backward>
Tensor run_backward(Backward backward, const Tensor& gradient, const Tensor& output, int64_t dim,
                    at::ScalarType input_type) {
  Tensor result = at::empty_like(gradient, at::MemoryFormat::Contiguous);
  backward(result, gradient, output, dim, gradient.scalar_type());
  return result.to(input_type);
}

}  // namespace

Tensor softmax(const Tensor& self, int64_t dim, bool half_to_float) {
  return run_forward(&at::_softmax_out, self, dim, half_to_float);
}

Tensor log_softmax(const Tensor& self, int64_t dim, bool half_to_float) {
  return run_forward(&at::_log_softmax_out, self, dim, half_to_float);
}

Tensor softmax_backward(const Tensor& gradient, const Tensor& output, int64_t dim,
                        at::ScalarType input_type) {
  return run_backward(&at::_softmax_backward_data_out, gradient, output, dim, input_type);
}

Tensor log_softmax_backward(const Tensor& gradient, const Tensor& output, int64_t dim,
                            at::ScalarType input_type) {
  return run_backward(&at::_log_softmax_backward_data_out, gradient, output, dim, input_type);
}

Tensor mm(const Tensor& self, const Tensor& other, at::ScalarType type) {
  return at::mm(self.to(type), other.to(type));
}
Tensor& mm_out(const Tensor& self, const Tensor& other, at::ScalarType type, Tensor& out) {
  return at::mm_out(out, self.to(type), other.to(type));
}

Tensor bmm(const Tensor& self, const Tensor& other, at::ScalarType type) {
  return at::bmm(self.to(type), other.to(type));
}
Tensor& bmm_out(const Tensor& self, const Tensor& other, at::ScalarType type, Tensor& out) {
  return at::bmm_out(out, self.to(type), other.to(type));
}

Tensor addmm(const Tensor& self, const Tensor& a, const Tensor& b, at::ScalarType type,
             const at::Scalar& beta, const at::Scalar& alpha) {
  return at::addmm(self.to(type), a.to(type), b.to(type), beta, alpha);
}
Tensor& addmm_out(const Tensor& self, const Tensor& a, const Tensor& b, at::ScalarType type,
                  const at::Scalar& beta, const at::Scalar& alpha, Tensor& out) {
  return at::addmm_out(out, self.to(type), a.to(type), b.to(type), beta, alpha);
}

Tensor baddbmm(const Tensor& self, const Tensor& a, const Tensor& b, at::ScalarType type,
               const at::Scalar& beta, const at::Scalar& alpha) {
  return at::baddbmm(self.to(type), a.to(type), b.to(type), beta, alpha);
}
Tensor& baddbmm_out(const Tensor& self, const Tensor& a, const Tensor& b, at::ScalarType type,
                    const at::Scalar& beta, const at::Scalar& alpha, Tensor& out) {
  return at::baddbmm_out(out, self.to(type), a.to(type), b.to(type), beta, alpha);
}

}  // namespace pipellm
