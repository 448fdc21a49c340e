// Copies: aten::copy_ between host and devices, and the few bytes an operator hands back.
#pragma once

#include <ATen/core/Tensor.h>

namespace pipellm {

// Makes CUDA copies work: takes torch's copy_stub for CUDA, beneath torch's own checks of copy_.
void register_copy();

// aten::_local_scalar_dense: one element to the host, by a blocking copy.
at::Scalar read_scalar(const at::Tensor& self);

// Blocks until the first `nbytes` of `storage` have come to the host, and forgets them.
void read_back(const c10::Storage& storage, uint64_t nbytes);

}  // namespace pipellm
