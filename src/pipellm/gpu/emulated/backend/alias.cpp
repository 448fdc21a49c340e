#include "alias.h"

#include "current.h"
#include "device_memory.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/TensorImpl.h>

namespace pipellm {

namespace {

using at::Tensor;
using c10::StorageImpl;

void release_storage(void* storage) {
  c10::raw::intrusive_ptr::decref(static_cast<StorageImpl*>(storage));
}

// The same bytes as a CPU storage, which owns a reference to the device's.
c10::Storage host_storage(const c10::Storage& storage) {
  StorageImpl* device = storage.unsafeGetStorageImpl();
  void* data = device->mutable_data();
  c10::raw::intrusive_ptr::incref(device);
  c10::DataPtr alias(data, device, &release_storage, c10::Device(c10::kCPU));
  return c10::Storage(c10::Storage::use_byte_size_t{}, device->nbytes(), std::move(alias),
                      c10::GetCPUAllocator(), /*resizable=*/true);
}

void relabel(StorageImpl* storage, c10::Device device) {
  storage->_mutable_data_ptr_no_checks().unsafe_set_device(device);
  storage->set_allocator(device_allocator());
}

// Makes `result`, whose only user is the caller, a tensor of `storage`'s device.
void relabel(const Tensor& result, c10::Storage storage) {
  c10::TensorImpl* impl = result.unsafeGetTensorImpl();
  impl->_change_backend_component_keys(storage.device());
  impl->set_storage_keep_dtype(std::move(storage));
}

Tensor copy_to_device(const Tensor& result, c10::Device device) {
  const CurrentDevice current(device.index());
  Tensor copy = at::detail::empty_strided_generic(
      result.sizes(), result.strides(), device_allocator(),
      c10::DispatchKeySet(c10::DispatchKey::CUDA), result.scalar_type());
  pipellm::host_alias(copy).copy_(result);
  return copy;
}

}  // namespace

Tensor host_alias(const Tensor& tensor) {
  c10::DispatchKeySet keys(c10::DispatchKey::CPU);
  if (tensor.is_conj()) keys = keys.add(c10::DispatchKey::Conjugate);
  if (tensor.is_neg()) keys = keys.add(c10::DispatchKey::Negative);
  Tensor alias = at::detail::make_tensor<c10::TensorImpl>(host_storage(tensor.storage()), keys,
                                                          tensor.dtype());
  alias.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                     tensor.storage_offset());
  return alias;
}

void settle(const Tensor& tensor, const Tensor& alias) {
  StorageImpl* device = tensor.storage().unsafeGetStorageImpl();
  StorageImpl* host = alias.storage().unsafeGetStorageImpl();
  if (host->data() != device->data()) {
    TORCH_INTERNAL_ASSERT(host->nbytes() == 0 || is_device_memory(host->data_ptr()));
    c10::DataPtr memory = std::move(host->_mutable_data_ptr_no_checks());
    memory.unsafe_set_device(device->device());
    device->set_data_ptr_noswap(std::move(memory));
    device->set_nbytes(host->nbytes());
  }
  if (alias.sizes() != tensor.sizes() || alias.strides() != tensor.strides()) {
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides(),
                                                        alias.storage_offset());
  }
}

Tensor adopt(Tensor result, c10::DeviceIndex index) {
  const c10::Device device(c10::kCUDA, index);
  TORCH_CHECK_NOT_IMPLEMENTED(result.layout() == c10::kStrided,
                              "the emulated GPU has dense tensors only, not ", result.layout());
  StorageImpl* storage = result.storage().unsafeGetStorageImpl();
  if (storage->nbytes() != 0 && !is_device_memory(storage->data_ptr())) {
    return copy_to_device(result, device);
  }
  relabel(storage, device);
  relabel(result, result.storage());
  return result;
}

Tensor adopt_view(Tensor result, const Tensor& owner) {
  relabel(result, owner.storage());
  return result;
}

}  // namespace pipellm
