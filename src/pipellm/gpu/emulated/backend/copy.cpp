#include "copy.h"

#include "alias.h"
#include "current.h"
#include "device_memory.h"
#include "driver.h"

#include <ATen/TensorIterator.h>
#include <ATen/native/Copy.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/Storage.h>

#include <algorithm>
#include <array>

namespace pipellm {

namespace {

using at::Tensor;

// Both buffers of an asynchronous copy, held until the driver says that the bytes have moved.
struct Buffers {
  c10::Storage destination, source;

  static void release(void* token) { delete static_cast<Buffers*>(token); }
};

void launch(c10::Device device) {
  call<&PipellmDriver::launch>(device.index(), current_stream(device.index()));
}

// The copy seam: contiguous bytes between the host and one device, on its current stream.
void cross(PipellmCopy copy) {
  copy.stream = current_stream(static_cast<c10::DeviceIndex>(copy.device));
  check(driver().copy(driver().self, &copy));
}

bool is_lazy(const Tensor& tensor) { return tensor.is_conj() || tensor.is_neg(); }

// Whether both sides hold the same bytes in the same order.
bool is_flat(const at::TensorIterator& iterator) {
  return iterator.dtype(0) == iterator.dtype(1) && iterator.is_contiguous() &&
         iterator.tensor(0).is_conj() == iterator.tensor(1).is_conj() &&
         iterator.tensor(0).is_neg() == iterator.tensor(1).is_neg();
}

void cross_flat(const at::TensorIterator& iterator, bool asynchronous) {
  const Tensor& destination = iterator.tensor(0);
  const Tensor& source = iterator.tensor(1);
  const bool to_device = destination.is_cuda();
  PipellmCopy copy{};
  copy.device = to_device ? destination.device().index() : source.device().index();
  copy.direction = to_device ? PIPELLM_H2D : PIPELLM_D2H;
  copy.destination = iterator.data_ptr(0);
  copy.source = iterator.data_ptr(1);
  copy.nbytes = static_cast<uint64_t>(iterator.numel()) * destination.element_size();
  copy.asynchronous = asynchronous;
  if (asynchronous) {
    // The driver calls `release` exactly once, even where the copy fails.
    copy.token = new Buffers{destination.storage(), source.storage()};
    copy.release = &Buffers::release;
  }
  cross(copy);
}

// A copy that is not flat goes through contiguous tensors, made where CUDA makes them (ATen/native/
// cuda/Copy.cu): a blocking copy converts types on the host, to spare device memory; an
// asynchronous one on the device, to spare the host's time.
void cross_through_temporary(const at::TensorIterator& iterator, bool asynchronous) {
  const Tensor& destination = iterator.tensor(0);
  const Tensor& source = iterator.tensor(1);
  const bool converts_at_source = source.is_cuda() == asynchronous;
  const auto crossing = converts_at_source ? destination.scalar_type() : source.scalar_type();

  const Tensor from =
      source.to(crossing).expand_as(destination).contiguous().resolve_conj().resolve_neg();
  const bool scatters = !destination.is_contiguous() || is_lazy(destination) ||
                        destination.scalar_type() != crossing;
  const Tensor to = scatters ? at::empty_like(destination, destination.options().dtype(crossing),
                                              at::MemoryFormat::Contiguous)
                             : destination;
  // On the device the second step waits for the first by stream order. On the host it would read
  // the temporary at once, so there the first step must be over.
  to.copy_(from, asynchronous && !(scatters && destination.is_cpu()));
  if (scatters) destination.copy_(to);
}

void copy_kernel(at::TensorIterator& iterator, bool non_blocking) {
  if (iterator.numel() == 0) return;
  const c10::Device destination = iterator.device(0);
  const c10::Device source = iterator.device(1);
  if (destination.is_cuda() && source.is_cuda()) {
    // On the devices themselves, whose memory the host's kernel can reach: no bus, no seam.
    launch(source);
    if (destination != source) launch(destination);
    const KernelMemory memory(destination.index());
    host_alias(iterator.tensor(0)).copy_(host_alias(iterator.tensor(1)));
    if (driver().operated != nullptr) {
      const auto elements = static_cast<uint64_t>(iterator.numel());
      const uint64_t nbytes = elements * (iterator.element_size(0) + iterator.element_size(1));
      call<&PipellmDriver::operated>(source.index(), current_stream(source.index()),
                                     static_cast<double>(elements), nbytes);
    }
  } else if (is_flat(iterator)) {
    cross_flat(iterator, non_blocking);
  } else {
    cross_through_temporary(iterator, non_blocking);
  }
}

}  // namespace

void register_copy() { at::native::copy_stub.set_cuda_dispatch_ptr(&copy_kernel); }

at::Scalar read_scalar(const Tensor& self) {
  Tensor host = at::empty({}, self.options().device(c10::kCPU));
  PipellmCopy copy{};
  copy.device = self.device().index();
  copy.direction = PIPELLM_D2H;
  copy.destination = host.mutable_data_ptr();
  copy.source = self.const_data_ptr();
  copy.nbytes = self.element_size();
  cross(copy);
  return host.item();
}

void read_back(const c10::Storage& storage, uint64_t nbytes) {
  std::array<char, 16> forgotten{};
  PipellmCopy copy{};
  copy.device = storage.device().index();
  copy.direction = PIPELLM_D2H;
  copy.destination = forgotten.data();
  copy.source = storage.data();
  copy.nbytes = std::min<uint64_t>({nbytes, storage.nbytes(), forgotten.size()});
  if (copy.nbytes != 0) cross(copy);
}

}  // namespace pipellm
