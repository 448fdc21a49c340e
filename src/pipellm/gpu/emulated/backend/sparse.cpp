#include "sparse.h"

#include "cpu_kernel.h"
#include "current.h"
#include "operators.h"

#include <ATen/SparseTensorImpl.h>
#include <ATen/native/SparseTensorUtils.h>

namespace pipellm {

namespace {

using at::Tensor;
using at::sparse::get_sparse_impl;
using c10::DispatchKey;

// aten::copy_sparse_to_sparse_, which copies between the host and a device, too: each of the two dense
// tensors crosses by itself.
Tensor& copy_sparse(Tensor& self, const Tensor& source, bool non_blocking) {
  if (self.is_same(source)) return self;
  const auto home = self.options().layout(at::kStrided);
  const auto moved = [&](const Tensor& tensor, at::ScalarType dtype) {
    return tensor.to(home.dtype(dtype), non_blocking, /*copy=*/true);
  };
  set_sparse(self, source, moved(source._indices(), at::kLong),
             moved(source._values(), self.scalar_type()));
  return self;
}

// What the host knows without the device.
void run_on_host(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  op.redispatchBoxed(c10::DispatchKeySet(DispatchKey::SparseCPU), stack);
}

template <const char* const& What>
void refuse(const c10::OperatorHandle&, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "the emulated GPU has no ", What);
}

constexpr const char* kCompressed = "tensors of compressed sparse layouts: use COO, or the CPU";
constexpr const char* kNested =
    "nested tensors of strided layout: make them with layout=torch.jagged, or on the CPU";
constexpr const char* kQuantized = "quantized tensors: keep them on the CPU";

template <const char* const& What>
void refuse_all(DispatchKey key) {
  // Leaked: see operators.cpp.
  auto* any = new torch::Library(torch::Library::IMPL, "_", key, __FILE__, __LINE__);
  any->fallback(torch::CppFunction::makeFromBoxedFunction<&refuse<What>>());
}

}  // namespace

void set_sparse(const Tensor& sparse, const Tensor& model, const Tensor& indices,
                const Tensor& values) {
  auto* impl = get_sparse_impl(sparse);
  impl->raw_resize_(model.sparse_dim(), model.dense_dim(), model.sizes());
  impl->set_indices_and_values_unsafe(indices, values);
  impl->set_coalesced(get_sparse_impl(model)->coalesced());
}

Tensor sparse_over(const Tensor& model, const Tensor& indices, const Tensor& values) {
  const bool on_device = values.is_cuda();
  const CurrentDevice current(on_device ? values.device().index() : current_device());
  Tensor sparse = at::detail::make_tensor<at::SparseTensorImpl>(
      c10::DispatchKeySet(on_device ? DispatchKey::SparseCUDA : DispatchKey::SparseCPU),
      model.dtype());
  set_sparse(sparse, model, indices, values);
  return sparse;
}

void register_sparse() {
  auto* any = new torch::Library(MAKE_TORCH_LIBRARY_IMPL(_, SparseCUDA));  // leaked
  any->fallback(torch::CppFunction::makeFromBoxedFunction<&run_unknown_operator>());
  auto* aten = new torch::Library(MAKE_TORCH_LIBRARY_IMPL(aten, SparseCUDA));
  aten->impl("copy_sparse_to_sparse_", TORCH_FN(copy_sparse));
  for (const char* name : {"_nnz", "_dimI", "_dimV", "sparse_dim", "dense_dim", "is_coalesced",
                           "_indices", "_values", "indices", "values", "_coalesced_"}) {
    aten->impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  }
  // The rest as the CPU's. Those that are composite, too, or torch would prefer dense tensors' way.
  register_cpu_kernels(*aten, DispatchKey::SparseCPU, DispatchKey::SparseCUDA);
  refuse_all<kCompressed>(DispatchKey::SparseCsrCUDA);
  refuse_all<kNested>(DispatchKey::NestedTensorCUDA);
  refuse_all<kQuantized>(DispatchKey::QuantizedCUDA);
}

}  // namespace pipellm
