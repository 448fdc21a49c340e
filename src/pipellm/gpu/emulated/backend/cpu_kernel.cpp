#include "cpu_kernel.h"

#include "alias.h"
#include "copy.h"
#include "current.h"
#include "device_memory.h"
#include "driver.h"
#include "each_tensor.h"
#include "generator.h"
#include "sparse.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/stack.h>
#include <c10/util/SmallVector.h>

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace pipellm {

namespace {

using at::Tensor;
using c10::DeviceIndex;
using c10::IValue;
using Stack = torch::jit::Stack;

bool is_on_device(const Tensor& tensor) { return tensor.defined() && tensor.is_cuda(); }

// One run of one operator.
class Run {
 public:
  Run(const OperatorPlan& plan, const c10::OperatorHandle& op, c10::DispatchKeySet host,
      Stack* stack)
      : plan_(plan),
        op_(op),
        host_(host),
        stack_(stack),
        first_(stack->size() - plan.arguments) {}

  void operator()() {
    find_device();
    if (device_ < 0) return op_.redispatchBoxed(host_, stack_);  // nothing of the device's
    check_devices();
    call<&PipellmDriver::launch>(device_, current_stream(device_));
    if (is_traced()) asked_.assign(stack_->begin() + static_cast<ptrdiff_t>(first_), stack_->end());
    replace_arguments();
    {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      const KernelMemory memory(device_);
      op_.redispatchBoxed(host_, stack_);
    }
    for (const auto& [tensor, alias] : written_) {
      if (tensor.is_sparse()) {
        set_sparse(tensor, alias, on_device(alias._indices()), on_device(alias._values()));
      } else {
        settle(tensor, alias);
      }
    }
    replace_results();
    if (is_traced()) tell_work();
    if (plan_.reads_back && !aliases_.empty()) {
      const Tensor& asked = aliases_.front().first;  // a dense one: the parts of a sparse one go first
      if (asked.has_storage()) read_back(asked.storage(), sizeof(int64_t));
    }
  }

 private:
  IValue& argument(size_t i) { return (*stack_)[first_ + i]; }

  void find_device() {
    for (size_t i = 0; i < plan_.arguments && device_ < 0; ++i) {
      for_each_tensor(argument(i), [this](const Tensor& tensor) {
        if (device_ < 0 && is_on_device(tensor)) device_ = tensor.device().index();
      });
    }
    for (size_t i = 0; i < plan_.arguments && device_ < 0; ++i) {  // factories
      if (argument(i).isDevice() && argument(i).toDevice().is_cuda()) {
        device_ = index_of(argument(i).toDevice());
      }
    }
  }

  // A host tensor among the device's would be a covert copy past the seam. CUDA's kernels take
  // zero-dimensional ones, as scalars, and move the indices of indexing operators (Tensor?[]).
  void check_devices() {
    for (size_t i = 0; i < plan_.arguments; ++i) {
      const bool indices = argument(i).isList() && argument(i).isOptionalTensorList();
      if (indices) continue;
      for_each_tensor(argument(i), [&](const Tensor& tensor) {
        if (!tensor.defined()) return;
        const bool scalar = tensor.is_cpu() && tensor.dim() == 0 && !plan_.written[i];
        const bool here = tensor.is_cuda() && tensor.device().index() == device_;
        TORCH_CHECK(here || scalar,
                    "Expected all tensors to be on the same device, but found at least two "
                    "devices, cuda:",
                    static_cast<int>(device_), " and ", tensor.device(), "! (in ", plan_.name, ")");
      });
    }
  }

  Tensor alias_of(const Tensor& tensor, size_t i) {
    if (!is_on_device(tensor)) return tensor;
    Tensor alias = tensor.is_sparse() ? sparse_alias_of(tensor) : host_alias(tensor);
    aliases_.emplace_back(tensor, alias);
    if (plan_.written[i]) written_.emplace_back(tensor, alias);
    return alias;
  }

  Tensor sparse_alias_of(const Tensor& tensor) {
    const auto part = [this](const Tensor& dense) {
      aliases_.emplace_back(dense, host_alias(dense));
      return aliases_.back().second;
    };
    return sparse_over(tensor, part(tensor._indices()), part(tensor._values()));
  }

  void replace_arguments() {
    for (const int i : plan_.returned_argument) {
      returned_.push_back(i == OperatorPlan::kNone ? IValue() : argument(static_cast<size_t>(i)));
    }
    for (size_t i = 0; i < plan_.arguments; ++i) {
      IValue& value = argument(i);
      if (value.isTensor()) {
        value = alias_of(value.toTensor(), i);
      } else if (value.isTensorList()) {
        c10::List<Tensor> list;
        for (const Tensor& tensor : value.toTensorVector()) list.push_back(alias_of(tensor, i));
        value = std::move(list);
      } else if (value.isList() && value.isOptionalTensorList()) {
        value = indices_of(value, i);
      } else if (value.isDevice() && value.toDevice().is_cuda()) {
        value = c10::Device(c10::kCPU);
      } else if (static_cast<int>(i) == plan_.generator) {
        value = host_generator(value.isGenerator() ? value.toGenerator()
                                                   : default_generator(device_));
      }
    }
  }

  c10::List<std::optional<Tensor>> indices_of(const IValue& value, size_t i) {
    const c10::Device device(c10::kCUDA, device_);
    c10::List<std::optional<Tensor>> list;
    for (const std::optional<Tensor>& index : value.toOptionalTensorVector()) {
      if (index && index->defined()) {
        list.push_back(alias_of(index->to(device), i));  // CUDA moves them too: a real crossing
      } else {
        list.push_back(index);
      }
    }
    return list;
  }

  Tensor on_device(Tensor result) {
    if (!result.defined() || !result.is_cpu()) return result;
    for (const auto& [tensor, alias] : aliases_) {
      if (result.is_same(alias)) return tensor;
    }
    if (result.is_sparse()) {
      return sparse_over(result, on_device(result._indices()), on_device(result._values()));
    }
    for (const auto& [tensor, alias] : aliases_) {
      if (result.has_storage() && alias.has_storage() && result.storage().is_alias_of(alias.storage())) {
        return adopt_view(std::move(result), tensor);
      }
    }
    return adopt(std::move(result), device_);
  }

  void replace_results() {
    const size_t count = plan_.returned_argument.size();
    const size_t first = stack_->size() - count;
    for (size_t i = 0; i < count; ++i) {
      IValue& value = (*stack_)[first + i];
      if (plan_.returned_argument[i] != OperatorPlan::kNone) {
        value = std::move(returned_[i]);
      } else if (value.isTensor()) {
        value = on_device(std::move(value).toTensor());
      } else if (value.isTensorList()) {
        c10::List<Tensor> list;
        for (Tensor& tensor : value.toTensorVector()) list.push_back(on_device(tensor));
        value = std::move(list);
      }
    }
  }

  static bool is_traced() { return driver().operated != nullptr; }

  void tell_work() {
    const size_t count = plan_.returned_argument.size();
    std::vector<IValue> made;
    for (size_t i = 0; i < count; ++i) {
      if (plan_.returned_argument[i] == OperatorPlan::kNone) {
        made.push_back((*stack_)[stack_->size() - count + i]);
      }
    }
    const Work work = plan_.work(asked_, plan_.written, made);
    call<&PipellmDriver::operated>(device_, current_stream(device_), work.flops, work.nbytes);
  }

  const OperatorPlan& plan_;
  const c10::OperatorHandle& op_;
  const c10::DispatchKeySet host_;  // where its CPU kernel is
  Stack* const stack_;
  const size_t first_;  // of the arguments, on the stack
  DeviceIndex device_ = -1;
  c10::SmallVector<std::pair<Tensor, Tensor>, 4> aliases_;  // (device tensor, its host alias)
  c10::SmallVector<std::pair<Tensor, Tensor>, 2> written_;  // those that the kernel writes to
  c10::SmallVector<IValue, 2> returned_;                    // arguments that are returned
  std::vector<IValue> asked_;                               // all arguments, while a trace is kept
};

}  // namespace

void CpuKernel::operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const bool sparse = keys.has(c10::DispatchKey::SparseCUDA);
  const c10::DispatchKeySet host(sparse ? c10::DispatchKey::SparseCPU : c10::DispatchKey::CPU);
  if (plan_.is_view) return op.redispatchBoxed(host, stack);
  Run(plan_, op, host, stack)();
}

void run_unknown_operator(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  using Kernels = std::unordered_map<c10::OperatorName, std::unique_ptr<CpuKernel>>;
  static std::mutex mutex;
  static auto& kernels = *new Kernels();  // leaked: operators may run until the very end
  CpuKernel* kernel = nullptr;
  {
    const std::lock_guard lock(mutex);
    std::unique_ptr<CpuKernel>& slot = kernels[op.operator_name()];
    if (!slot) slot = std::make_unique<CpuKernel>(OperatorPlan(op));
    kernel = slot.get();
  }
  (*kernel)(op, keys, stack);
}

}  // namespace pipellm
