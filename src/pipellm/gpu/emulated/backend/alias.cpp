#include "alias.h"

#include "current.h"
#include "device_memory.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/TensorImpl.h>

namespace pipellm {

namespace {

using at::Tensor;
using c10::DeviceIndex;
using c10::StorageImpl;

void release_storage(void* storage) {
  c10::raw::intrusive_ptr::decref(static_cast<StorageImpl*>(storage));
}

// The same bytes under another device's label, in a storage that owns a reference to theirs.
c10::Storage relabelled(const c10::Storage& storage, c10::Device label, c10::Allocator* allocator,
                        bool resizable) {
  StorageImpl* original = storage.unsafeGetStorageImpl();
  void* data = original->mutable_data();
  c10::raw::intrusive_ptr::incref(original);
  c10::DataPtr alias(data, original, &release_storage, label);
  return c10::Storage(c10::Storage::use_byte_size_t{}, original->nbytes(), std::move(alias),
                      allocator, resizable);
}

Tensor over(c10::Storage storage, c10::DispatchKeySet keys, const Tensor& shaped_like) {
  Tensor alias =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, shaped_like.dtype());
  alias.unsafeGetTensorImpl()->set_sizes_and_strides(shaped_like.sizes(), shaped_like.strides(),
                                                     shaped_like.storage_offset());
  return alias;
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
  return over(relabelled(tensor.storage(), c10::kCPU, c10::GetCPUAllocator(), /*resizable=*/true),
              keys, tensor);
}

Tensor device_alias(const Tensor& tensor, DeviceIndex index) {
  TORCH_CHECK(tensor.is_cpu() && tensor.layout() == c10::kStrided && !tensor.is_conj() && !tensor.is_neg(),
              "only dense host memory can stand for device memory");
  const c10::Device device(c10::kCUDA, index);
  return over(relabelled(tensor.storage(), device, device_allocator(), /*resizable=*/false),
              c10::DispatchKeySet(c10::DispatchKey::CUDA), tensor);
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

Tensor adopt(Tensor result, DeviceIndex index) {
  const c10::Device device(c10::kCUDA, index);
  TORCH_CHECK_NOT_IMPLEMENTED(result.layout() == c10::kStrided,
                              "the emulated GPU has no tensors of layout ", result.layout(),
                              ": use COO, or the CPU");
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
