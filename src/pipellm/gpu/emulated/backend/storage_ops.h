// Operators that make or resize device storage, without running a kernel.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace pipellm {

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout> layout, std::optional<at::Device> device,
                 std::optional<bool> pin_memory, std::optional<at::MemoryFormat> format);

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                         std::optional<at::Device> device, std::optional<bool> pin_memory);

// aten::resize_ and aten::set_: torch's own CPU code, which allocates from the storage's allocator.
void run_on_metadata(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack);

// What torch's resize_bytes_cuda does: the bytes that fit are kept.
void resize_device_storage(const c10::Storage& storage, size_t nbytes);

void record_stream(at::Tensor& self, at::Stream stream);

}  // namespace pipellm
