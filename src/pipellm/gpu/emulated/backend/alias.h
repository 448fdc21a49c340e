// Device tensors as CPU kernels see them, and CPU kernels' results as device tensors.
#pragma once

#include <ATen/core/Tensor.h>

namespace pipellm {

// A CPU tensor over the same bytes, shape and strides. It keeps the device memory alive.
at::Tensor host_alias(const at::Tensor& tensor);

// The inverse: host memory as a tensor of `device`, over the same bytes. It keeps them alive.
at::Tensor device_alias(const at::Tensor& tensor, c10::DeviceIndex device);

// Gives back to `tensor` what a kernel changed about its host alias: an out= tensor that was
// resized takes the alias's new memory and shape.
void settle(const at::Tensor& tensor, const at::Tensor& alias);

// A kernel's result as a tensor of `device`. Results are born in device memory (KernelMemory), so
// this changes their labels; memory from elsewhere is copied.
at::Tensor adopt(at::Tensor result, c10::DeviceIndex device);

// The same, for a result that shares its storage with the alias of `owner`.
at::Tensor adopt_view(at::Tensor result, const at::Tensor& owner);

}  // namespace pipellm
