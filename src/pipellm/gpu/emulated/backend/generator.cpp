#include "generator.h"

#include "current.h"
#include "driver.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/util/Exception.h>

#include <vector>

namespace pipellm {

namespace {

class DeviceGenerator final : public c10::GeneratorImpl {
 public:
  DeviceGenerator(c10::DeviceIndex device, at::Generator host)
      : GeneratorImpl(c10::Device(c10::kCUDA, device), c10::DispatchKeySet(c10::DispatchKey::CUDA)),
        host_(std::move(host)) {}

  const at::Generator& host() const { return host_; }

  void set_current_seed(uint64_t seed) override { host_.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { host_.set_offset(offset); }
  uint64_t get_offset() const override { return host_.get_offset(); }
  uint64_t current_seed() const override { return host_.current_seed(); }
  uint64_t seed() override { return host_.unsafeGetGeneratorImpl()->seed(); }
  void set_state(const c10::TensorImpl& state) override {
    host_.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host_.unsafeGetGeneratorImpl()->get_state();
  }

 private:
  DeviceGenerator* clone_impl() const override {
    return new DeviceGenerator(device_.index(), host_.clone());
  }

  at::Generator host_;
};

}  // namespace

at::Generator new_generator(c10::DeviceIndex device) {
  const c10::DeviceIndex index = device < 0 ? current_device() : device;
  return at::make_generator<DeviceGenerator>(index, at::detail::createCPUGenerator());
}

const at::Generator& default_generator(c10::DeviceIndex device) {
  static const auto* const generators = [] {  // leaked: threads may draw until the very end
    auto* all = new std::vector<at::Generator>();
    for (int i = 0; i < driver_device_count(); ++i) {
      all->push_back(new_generator(static_cast<c10::DeviceIndex>(i)));
    }
    return all;
  }();
  return generators->at(static_cast<size_t>(device < 0 ? current_device() : device));
}

at::Generator host_generator(const at::Generator& generator) {
  TORCH_CHECK(generator.device().is_cuda(),
              "Expected a 'cuda' device type for generator but found '", generator.device().type(),
              "'");
  return static_cast<DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->host();
}

}  // namespace pipellm
