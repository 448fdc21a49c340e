#include "dropout.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

namespace pipellm {

std::tuple<at::Tensor, at::Tensor> dropout(const at::Tensor& input, double probability,
                                           std::optional<bool> train) {
  const auto mask_options = input.options().dtype(at::kBool);
  if (!train.value_or(true)) return {input.clone(), at::ones(input.sizes(), mask_options)};
  const double kept = 1 - probability;
  at::Tensor mask = at::empty(input.sizes(), mask_options).bernoulli_(kept);
  at::Tensor output = input.mul(mask).mul_(kept == 0 ? 0.0 : 1 / kept);
  return {std::move(output), std::move(mask)};
}

}  // namespace pipellm
