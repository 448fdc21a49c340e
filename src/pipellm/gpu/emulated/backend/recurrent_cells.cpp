#include "recurrent_cells.h"

#include "one_kernel.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>

namespace pipellm {

namespace {

using at::Tensor;

Tensor plus_bias(Tensor gates, const Tensor& bias) {
  return bias.defined() ? gates.add(bias) : gates;
}

Tensor or_zeros(const Tensor& gradient, const Tensor& like) {
  return gradient.defined() ? gradient : at::zeros_like(like);
}

// Of sigmoid and tanh, by their values.
Tensor sigmoid_slope(const Tensor& value) { return value * (1 - value); }
Tensor tanh_slope(const Tensor& value) { return 1 - value * value; }

}  // namespace

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input_gates, const Tensor& hidden_gates,
                                             const Tensor& cx, const OptionalTensor& input_bias,
                                             const OptionalTensor& hidden_bias) {
  OneKernel kernel(input_gates);
  const Tensor sum =
      plus_bias(kernel.argument(input_gates), kernel.argument(input_bias)) +
      plus_bias(kernel.argument(hidden_gates), kernel.argument(hidden_bias));
  const auto of = sum.chunk(4, -1);
  const Tensor in = of[0].sigmoid(), forget = of[1].sigmoid();
  const Tensor cell = of[2].tanh(), out = of[3].sigmoid();
  Tensor cy = forget * kernel.argument(cx) + in * cell;
  Tensor hy = out * cy.tanh();
  return {kernel.result(std::move(hy)), kernel.result(std::move(cy)),
          kernel.result(at::cat({in, forget, cell, out}, -1))};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(const OptionalTensor& grad_hy,
                                                      const OptionalTensor& grad_cy,
                                                      const Tensor& cx, const Tensor& cy,
                                                      const Tensor& gates, bool has_bias) {
  if (!(grad_hy && grad_hy->defined()) && !(grad_cy && grad_cy->defined())) return {};
  OneKernel kernel(gates);
  const auto of = kernel.argument(gates).chunk(4, -1);
  const Tensor &in = of[0], &forget = of[1], &cell = of[2], &out = of[3];
  const Tensor old = kernel.argument(cx), squashed = kernel.argument(cy).tanh();
  const Tensor of_hy = or_zeros(kernel.argument(grad_hy), old);
  const Tensor of_cy =
      or_zeros(kernel.argument(grad_cy), old) + of_hy * out * tanh_slope(squashed);
  Tensor of_gates = at::cat({of_cy * cell * sigmoid_slope(in), of_cy * old * sigmoid_slope(forget),
                             of_cy * in * tanh_slope(cell), of_hy * squashed * sigmoid_slope(out)},
                            -1);
  Tensor of_bias = has_bias ? kernel.result(of_gates.sum(0)) : Tensor();
  return {kernel.result(std::move(of_gates)), kernel.result(of_cy * forget), std::move(of_bias)};
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& input_gates, const Tensor& hidden_gates,
                                    const Tensor& hx, const OptionalTensor& input_bias,
                                    const OptionalTensor& hidden_bias) {
  OneKernel kernel(input_gates);
  const auto from_input =
      plus_bias(kernel.argument(input_gates), kernel.argument(input_bias)).chunk(3, -1);
  const auto from_hidden =
      plus_bias(kernel.argument(hidden_gates), kernel.argument(hidden_bias)).chunk(3, -1);
  const Tensor old = kernel.argument(hx);
  const Tensor reset = (from_input[0] + from_hidden[0]).sigmoid();
  const Tensor update = (from_input[1] + from_hidden[1]).sigmoid();
  const Tensor fresh = (from_input[2] + reset * from_hidden[2]).tanh();
  return {kernel.result(fresh + update * (old - fresh)),
          kernel.result(at::cat({reset, update, fresh, old, from_hidden[2]}, -1))};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& grad_hy,
                                                                     const Tensor& workspace,
                                                                     bool has_bias) {
  OneKernel kernel(workspace);
  const auto of = kernel.argument(workspace).chunk(5, -1);
  const Tensor &reset = of[0], &update = of[1], &fresh = of[2], &old = of[3], &hidden = of[4];
  const Tensor of_hy = kernel.argument(grad_hy);
  const Tensor of_update = of_hy * (old - fresh) * sigmoid_slope(update);
  const Tensor of_fresh = of_hy * (1 - update) * tanh_slope(fresh);
  const Tensor of_reset = of_fresh * hidden * sigmoid_slope(reset);
  Tensor of_input = at::cat({of_reset, of_update, of_fresh}, -1);
  Tensor of_hidden = at::cat({of_reset, of_update, of_fresh * reset}, -1);
  Tensor of_input_bias = has_bias ? kernel.result(of_input.sum(0)) : Tensor();
  Tensor of_hidden_bias = has_bias ? kernel.result(of_hidden.sum(0)) : Tensor();
  return {kernel.result(std::move(of_input)), kernel.result(std::move(of_hidden)),
          kernel.result(of_hy * update), std::move(of_input_bias), std::move(of_hidden_bias)};
}

}  // namespace pipellm
