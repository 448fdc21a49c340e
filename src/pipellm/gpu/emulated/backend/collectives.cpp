#include "collectives.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <torch/library.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <thread>
#include <utility>
#include <vector>

namespace pipellm {

namespace {

using at::Tensor;
using c10::IValue;

struct Copy {
  Tensor device, host;
};
using Copies = std::vector<Copy>;

// `value` with each tensor in it, however deep in lists, replaced.
template <typename Replace>
IValue replaced(const IValue& value, const Replace& replace) {
  if (value.isTensor()) return value.toTensor().defined() ? replace(value.toTensor()) : value;
  if (!value.isList()) return value;
  const auto list = value.toList();
  c10::impl::GenericList result(list.elementType());
  for (const IValue& element : list) result.push_back(replaced(element, replace));
  return result;
}

template <typename Replace>
void replace_last(torch::jit::Stack& stack, size_t count, const Replace& replace) {
  for (auto value = stack.end() - static_cast<std::ptrdiff_t>(count); value != stack.end(); ++value) {
    *value = replaced(*value, replace);
  }
}

// Until Gloo's thread has let go of what it has done, which is a moment after it says so. The last one
// to let go takes the GIL where Python knows of a part of it, and were that Gloo's thread, at a time
// when the interpreter is ending, the process would abort.
void wait_to_be_the_last(const c10::intrusive_ptr<c10d::Work>& work, size_t others) {
  using std::chrono::steady_clock;
  // A bound, should somebody else keep it.
  const auto end = steady_clock::now() + std::chrono::seconds(1);
  while (work.use_count() > others + 1 && steady_clock::now() < end) std::this_thread::yield();
}

void through_the_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Copies copies;
  const auto to_host = [&](const Tensor& tensor) {
    copies.push_back({tensor, tensor.cpu()});
    return copies.back().host;
  };
  const auto to_device = [&](const Tensor& tensor) {
    const auto it = std::ranges::find_if(
        copies, [&](const Copy& copy) { return copy.host.is_same(tensor); });
    return it == copies.end() ? tensor : it->device;
  };

  replace_last(*stack, op.schema().arguments().size(), to_host);
  op.callBoxed(stack);
  {
    const auto work = stack->back().toCustomClass<c10d::Work>();
    work->wait();
    wait_to_be_the_last(work, /*others=*/1);  // the stack
  }
  for (const auto& [device, host] : copies) device.copy_(host);
  replace_last(*stack, op.schema().returns().size(), to_device);
}

class Silence final : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

}  // namespace

void register_collectives() {
  Silence silence;  // torch's kernels are replaced on purpose
  const c10::WarningUtils::WarningHandlerGuard quiet(&silence);
  auto* c10d = new torch::Library(MAKE_TORCH_LIBRARY_IMPL(c10d, CUDA));  // leaked: see operators.cpp
  for (const char* name : {"allreduce_", "allreduce_coalesced_", "_reduce_scatter_base_",
                           "reduce_scatter_", "reduce_scatter_tensor_coalesced_"}) {
    c10d->impl(name, torch::CppFunction::makeFromBoxedFunction<&through_the_host>());
  }
}

}  // namespace pipellm
