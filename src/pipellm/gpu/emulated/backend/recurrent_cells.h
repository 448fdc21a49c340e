// One step of an LSTM and of a GRU: CUDA has each as one kernel, from the products of input and hidden
// state with the weights to the new state; the CPU has no such operators. By PyTorch's own formulas.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace pipellm {

using OptionalTensor = std::optional<at::Tensor>;

// Gates are [batch, 4 * hidden] (input, forget, cell, output). Returns (hy, cy, the gates' values, for
// the way back).
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(
    const at::Tensor& input_gates, const at::Tensor& hidden_gates, const at::Tensor& cx,
    const OptionalTensor& input_bias, const OptionalTensor& hidden_bias);
// Returns the gradients of (gates, cx, bias).
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell_backward(
    const OptionalTensor& grad_hy, const OptionalTensor& grad_cy, const at::Tensor& cx,
    const at::Tensor& cy, const at::Tensor& gates, bool has_bias);

// Gates are [batch, 3 * hidden] (reset, update, new). Returns (hy, what the way back needs).
std::tuple<at::Tensor, at::Tensor> gru_cell(const at::Tensor& input_gates,
                                            const at::Tensor& hidden_gates, const at::Tensor& hx,
                                            const OptionalTensor& input_bias,
                                            const OptionalTensor& hidden_bias);
// Returns the gradients of (input gates, hidden gates, hx, input bias, hidden bias).
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> gru_cell_backward(
    const at::Tensor& grad_hy, const at::Tensor& workspace, bool has_bias);

}  // namespace pipellm
