// Sparse tensors (COO) on the device: their indices and values are dense tensors of its memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/library.h>

namespace pipellm {

// A sparse tensor like `model` of the device of `indices` and `values`, which it then holds.
at::Tensor sparse_over(const at::Tensor& model, const at::Tensor& indices, const at::Tensor& values);

// Makes `sparse` what `model` is, over these.
void set_sparse(const at::Tensor& sparse, const at::Tensor& model, const at::Tensor& indices,
                const at::Tensor& values);

// Registers what sparse tensors need of their own, and one clear line for each other layout.
void register_sparse();

}  // namespace pipellm
