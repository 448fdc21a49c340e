#include "one_kernel.h"

#include "alias.h"
#include "current.h"
#include "driver.h"

namespace pipellm {

namespace {

c10::DeviceIndex launch_on(c10::DeviceIndex device) {
  call<&PipellmDriver::launch>(device, current_stream(device));
  return device;
}

}  // namespace

OneKernel::OneKernel(const at::Tensor& on)
    : device_(launch_on(on.device().index())), memory_(device_) {}

OneKernel::~OneKernel() {
  if (driver().operated == nullptr) return;
  status_of<&PipellmDriver::operated>(device_, current_stream(device_), elements_, nbytes_);
}

at::Tensor OneKernel::argument(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  TORCH_CHECK(tensor.is_cuda() && tensor.device().index() == device_,
              "Expected all tensors to be on the same device, but found at least two devices, cuda:",
              static_cast<int>(device_), " and ", tensor.device(), "!");
  count(tensor);
  return host_alias(tensor);
}

at::Tensor OneKernel::argument(const std::optional<at::Tensor>& tensor) {
  return tensor ? argument(*tensor) : at::Tensor();
}

at::Tensor OneKernel::result(at::Tensor tensor) {
  count(tensor);
  elements_ += static_cast<double>(tensor.numel());
  return adopt(std::move(tensor), device_);
}

void OneKernel::count(const at::Tensor& tensor) { nbytes_ += tensor.nbytes(); }

}  // namespace pipellm
