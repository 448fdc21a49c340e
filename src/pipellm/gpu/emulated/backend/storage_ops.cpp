#include "storage_ops.h"

#include "current.h"
#include "device_memory.h"
#include "driver.h"

#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/TensorOptions.h>

namespace pipellm {

namespace {

constexpr c10::DispatchKeySet kCudaKeys(c10::DispatchKey::CUDA);

c10::DeviceIndex checked_device(std::optional<at::Layout> layout, std::optional<at::Device> device,
                                std::optional<bool> pin_memory) {
  TORCH_CHECK(!pin_memory.value_or(false), "Only dense CPU tensors can be pinned");
  TORCH_CHECK_NOT_IMPLEMENTED(layout.value_or(at::kStrided) == at::kStrided,
                              "the emulated GPU has dense and sparse COO tensors only, not ", *layout);
  return device ? index_of(*device) : current_device();
}

}  // namespace

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout> layout, std::optional<at::Device> device,
                 std::optional<bool> pin_memory, std::optional<at::MemoryFormat> format) {
  const CurrentDevice current(checked_device(layout, device, pin_memory));
  return at::detail::empty_generic(size, device_allocator(), kCudaKeys,
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                         std::optional<at::Device> device, std::optional<bool> pin_memory) {
  const CurrentDevice current(checked_device(layout, device, pin_memory));
  return at::detail::empty_strided_generic(size, stride, device_allocator(), kCudaKeys,
                                           c10::dtype_or_default(dtype));
}

void run_on_metadata(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const size_t arguments = op.schema().arguments().size();
  const at::Tensor self = (*stack)[stack->size() - arguments].toTensor();
  const c10::DeviceIndex device = self.device().index();
  const CurrentDevice current(device);
  // Growing a storage copies its bytes: everything that must be in it has to have landed.
  call<&PipellmDriver::launch>(device, current_stream(device));
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
}

void resize_device_storage(const c10::Storage& storage, size_t nbytes) {
  const c10::DeviceIndex device = storage.device().index();
  const CurrentDevice current(device);
  call<&PipellmDriver::launch>(device, current_stream(device));
  at::native::resize_bytes_cpu(storage.unsafeGetStorageImpl(), nbytes);
}

// Nothing to remember: see DeviceMemory::recordStream.
void record_stream(at::Tensor&, at::Stream) {}

}  // namespace pipellm
