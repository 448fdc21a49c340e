// The boxed kernel behind almost every operator: it runs the operator's CPU kernel on host aliases
// of the device's tensors, as one kernel launched on the device's current stream.
#pragma once

#include "operator_plan.h"

#include <ATen/core/boxing/KernelFunction.h>

namespace pipellm {

class CpuKernel final : public c10::OperatorKernel {
 public:
  explicit CpuKernel(OperatorPlan plan) : plan_(std::move(plan)) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack);

 private:
  const OperatorPlan plan_;
};

// The same for operators that were not known when the backend was installed (extensions').
void run_unknown_operator(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                          torch::jit::Stack* stack);

}  // namespace pipellm
