#include "operators.h"

#include "copy.h"
#include "cpu_kernel.h"
#include "dropout.h"
#include "histogram.h"
#include "mixed_precision.h"
#include "recurrent_cells.h"
#include "storage_ops.h"

#include <ATen/core/stack.h>
#include <torch/library.h>

#include <memory>
#include <string>
#include <string_view>

namespace pipellm {

namespace {

using c10::DispatchKey;
using torch::CppFunction;

std::string short_name(const c10::OperatorName& name) {  // without "aten::"
  const std::string base = name.name.substr(name.name.find("::") + 2);
  return name.overload_name.empty() ? base : base + "." + name.overload_name;
}

CppFunction cpu_kernel(const c10::OperatorHandle& op) {
  return CppFunction::makeFromBoxedKernel(
      c10::BoxedKernel::makeFromFunctor(std::make_unique<CpuKernel>(OperatorPlan(op))));
}

// _fused_sdp_choice: 0 is SDPBackend::math; the fused kernels are CUDA's own.
int64_t choose_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const std::optional<at::Tensor>&, double, bool, std::optional<double>,
                         bool) {
  return 0;
}

// _use_cudnn_ctc_loss and the like: there is neither cuDNN nor MIOpen.
void answer_no(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  torch::jit::drop(stack, op.schema().arguments().size());
  stack->emplace_back(false);
}

void register_own_kernels(torch::Library& aten) {
  aten.impl("empty.memory_format", TORCH_FN(empty));
  aten.impl("empty_strided", TORCH_FN(empty_strided));
  aten.impl("record_stream", TORCH_FN(record_stream));
  for (const char* name : {"resize_", "set_.source_Tensor", "set_.source_Storage",
                           "set_.source_Storage_storage_offset", "is_set_to"}) {
    aten.impl(name, CppFunction::makeFromBoxedFunction<&run_on_metadata>());
  }
  aten.impl("_local_scalar_dense", TORCH_FN(read_scalar));
  aten.impl("native_dropout", TORCH_FN(dropout));
  aten.impl("_softmax", TORCH_FN(softmax));
  aten.impl("_log_softmax", TORCH_FN(log_softmax));
  aten.impl("_softmax_backward_data", TORCH_FN(softmax_backward));
  aten.impl("_log_softmax_backward_data", TORCH_FN(log_softmax_backward));
  aten.impl("mm.dtype", TORCH_FN(mm));
  aten.impl("mm.dtype_out", TORCH_FN(mm_out));
  aten.impl("bmm.dtype", TORCH_FN(bmm));
  aten.impl("bmm.dtype_out", TORCH_FN(bmm_out));
  aten.impl("addmm.dtype", TORCH_FN(addmm));
  aten.impl("addmm.dtype_out", TORCH_FN(addmm_out));
  aten.impl("baddbmm.dtype", TORCH_FN(baddbmm));
  aten.impl("baddbmm.dtype_out", TORCH_FN(baddbmm_out));
  for (const char* name : {"_use_cudnn_ctc_loss", "_use_cudnn_ctc_loss.Tensor",
                           "_use_miopen_ctc_loss", "_use_miopen_ctc_loss.Tensor"}) {
    aten.impl(name, CppFunction::makeFromBoxedFunction<&answer_no>());
  }
  aten.impl("histc", TORCH_FN(histc));
  aten.impl("histc.out", TORCH_FN(histc_out));
  aten.impl("_thnn_fused_lstm_cell", TORCH_FN(lstm_cell));
  aten.impl("_thnn_fused_lstm_cell_backward_impl", TORCH_FN(lstm_cell_backward));
  aten.impl("_thnn_fused_gru_cell", TORCH_FN(gru_cell));
  aten.impl("_thnn_fused_gru_cell_backward", TORCH_FN(gru_cell_backward));
  aten.impl("_fused_sdp_choice", TORCH_FN(choose_attention));
}

}  // namespace

void register_cpu_kernels(torch::Library& aten, DispatchKey host, DispatchKey device) {
  auto& dispatcher = c10::Dispatcher::singleton();
  // Wherever an operator has a CPU kernel it is the shortest way; torch would otherwise prefer a
  // composite form, with more and smaller kernels.
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (!std::string_view(name.name).starts_with("aten::")) continue;
    const auto op = dispatcher.findSchema(name);
    if (op && op->hasKernelForDispatchKey(host) && !op->hasKernelForDispatchKey(device)) {
      aten.impl(short_name(name).c_str(), cpu_kernel(*op));
    }
  }
}

void register_operators() {
  // Leaked on purpose: a Library takes its kernels back when it is destroyed, and at exit other
  // threads may still be running operators.
  auto* any = new torch::Library(MAKE_TORCH_LIBRARY_IMPL(_, CUDA));
  any->fallback(CppFunction::makeFromBoxedFunction<&run_unknown_operator>());
  auto* aten = new torch::Library(MAKE_TORCH_LIBRARY_IMPL(aten, CUDA));
  register_own_kernels(*aten);
  // Composite on the device, these would look for cuDNN; as a whole they have CPU kernels.
  for (const char* name : {"aten::convolution", "aten::convolution_backward"}) {
    aten->impl(name, cpu_kernel(*c10::Dispatcher::singleton().findSchema({name, ""})));
  }
  register_cpu_kernels(*aten, DispatchKey::CPU, DispatchKey::CUDA);
}

}  // namespace pipellm
