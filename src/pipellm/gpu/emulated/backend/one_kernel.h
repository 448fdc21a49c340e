// Several operators of the CPU as one kernel of the device's: for what CUDA has a kernel of its own
// and the CPU has only a formula. Lives as long as the kernel runs, on the calling thread.
#pragma once

#include "device_memory.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>

namespace pipellm {

class OneKernel {
 public:
  // Launches it on the current stream of `on`'s device.
  explicit OneKernel(const at::Tensor& on);
  // Tells the driver what it did.
  ~OneKernel();
  OneKernel(const OneKernel&) = delete;
  OneKernel& operator=(const OneKernel&) = delete;

  // An argument, to be computed with; undefined if it is. Throws for tensors of other devices.
  at::Tensor argument(const at::Tensor& tensor);
  at::Tensor argument(const std::optional<at::Tensor>& tensor);
  // A result, to be returned. It shares no memory with another one.
  at::Tensor result(at::Tensor tensor);

 private:
  void count(const at::Tensor& tensor);

  const c10::DeviceIndex device_;
  const at::AutoDispatchBelowADInplaceOrView below_autograd_;
  const KernelMemory memory_;
  double elements_ = 0;
  uint64_t nbytes_ = 0;
};

}  // namespace pipellm
