#include "histogram.h"

#include "copy.h"
#include "one_kernel.h"

#include <ATen/Dispatch.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/histc.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace pipellm {

namespace {

using at::Scalar;
using at::Tensor;

// ATen/native/cuda/SummaryOps.cu: each bin has its lower bound, the last one both. In whole numbers,
// so bins may be of different widths.
template <typename Integer>
void count(const Tensor& values, const Tensor& counts, int64_t lowest, int64_t highest) {
  const Integer* value = values.const_data_ptr<Integer>();
  Integer* bin = counts.mutable_data_ptr<Integer>();
  const int64_t bins = counts.numel();
  for (const Integer* const end = value + values.numel(); value != end; ++value) {
    const auto wide = static_cast<int64_t>(*value);
    if (wide < lowest || wide > highest) continue;
    const int64_t place = (wide - lowest) * bins / (highest - lowest);
    ++bin[std::min(place, bins - 1)];
  }
}

}  // namespace

Tensor histc(const Tensor& self, int64_t bins, const Scalar& min, const Scalar& max) {
  OneKernel kernel(self);
  const Tensor values = kernel.argument(self).contiguous();
  if (!at::isIntegralType(self.scalar_type(), /*includeBool=*/false)) {
    return kernel.result(at::histc(values, bins, min, max));
  }
  TORCH_CHECK(bins > 0, "bins must be > 0");
  int64_t lowest = min.to<int64_t>();
  int64_t highest = max.to<int64_t>();
  if (lowest == highest && values.numel() > 0) {
    lowest = values.min().item<int64_t>();
    highest = values.max().item<int64_t>();
    read_back(self.storage(), 2 * self.element_size());  // CUDA's host asks for both
  }
  if (lowest == highest) {
    --lowest;
    ++highest;
  }
  TORCH_CHECK(lowest < highest, "max must be larger than min");
  Tensor counts = at::zeros({bins}, values.options());
  AT_DISPATCH_INTEGRAL_TYPES(self.scalar_type(), "histc", [&] {
    count<scalar_t>(values, counts, lowest, highest);
  });
  return kernel.result(std::move(counts));
}

Tensor& histc_out(const Tensor& self, int64_t bins, const Scalar& min, const Scalar& max,
                  Tensor& out) {
  const Tensor counts = pipellm::histc(self, bins, min, max);
  at::native::resize_output(out, counts.sizes());
  return out.copy_(counts);
}

}  // namespace pipellm
