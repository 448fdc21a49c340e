#include "work.h"

#include "each_tensor.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace pipellm {

namespace {

using at::Tensor;
using c10::IValue;
using Values = std::vector<IValue>;

double product(at::IntArrayRef sizes) {
  double all = 1;
  for (const int64_t size : sizes) all *= static_cast<double>(size);
  return all;
}

double elements(const Tensor& tensor) { return static_cast<double>(tensor.numel()); }

// Every element of `a` meets every column of `b`.
double matrix_product(const Tensor& a, const Tensor& b) {
  return 2 * elements(a) * (b.dim() < 2 ? 1.0 : static_cast<double>(b.size(-1)));
}

template <size_t First>
double multiply(const Values& arguments, const Values&) {
  return matrix_product(arguments[First].toTensor(), arguments[First + 1].toTensor());
}

double linear(const Values& arguments, const Values&) {
  return 2 * elements(arguments[0].toTensor()) *
         static_cast<double>(arguments[1].toTensor().size(0));
}

// Every weight meets every place of the result, or of the input where it is transposed.
double convolve(const Tensor& input, const Tensor& weight, const Tensor& result, bool transposed) {
  const Tensor& places = transposed ? input : result;
  return 2 * elements(weight) * static_cast<double>(input.size(0)) *
         product(places.sizes().slice(2));
}

double convolution(const Values& arguments, const Values& results) {
  const IValue& result = results.empty() ? arguments.back() : results[0];  // the former with out=
  return convolve(arguments[0].toTensor(), arguments[1].toTensor(), result.toTensor(),
                  arguments[6].toBool());
}

// Of the input and of the weight: each as much as the way there.
double convolution_backward(const Values& arguments, const Values&) {
  const double one = convolve(arguments[1].toTensor(), arguments[2].toTensor(),
                              arguments[0].toTensor(), arguments[7].toBool());
  const auto mask = arguments[10].toBoolList();
  return one * (static_cast<double>(mask[0]) + static_cast<double>(mask[1]));
}

// Scores, and what they weigh: products of [queries, width] and [keys, width].
double attention(const Tensor& query, const Tensor& key, const Tensor& value, int of_scores,
                 int of_values) {
  const double pairs =
      elements(query) / static_cast<double>(query.size(-1)) * static_cast<double>(key.size(-2));
  return 2 * pairs * (of_scores * static_cast<double>(query.size(-1)) +
                      of_values * static_cast<double>(value.size(-1)));
}

double attend(const Values& arguments, const Values&) {
  return attention(arguments[0].toTensor(), arguments[1].toTensor(), arguments[2].toTensor(), 1, 1);
}

// The scores once more, and the gradients of query, key, value and of the scores themselves.
double attend_backward(const Values& arguments, const Values&) {
  return attention(arguments[1].toTensor(), arguments[2].toTensor(), arguments[3].toTensor(), 3, 2);
}

const std::unordered_map<std::string_view, double (*)(const Values&, const Values&)> kFormulas = {
    {"mm", &multiply<0>},
    {"bmm", &multiply<0>},
    {"mv", &multiply<0>},
    {"dot", &multiply<0>},
    {"vdot", &multiply<0>},
    {"_int_mm", &multiply<0>},
    {"_scaled_mm", &multiply<0>},
    {"_grouped_mm", &multiply<0>},
    {"addmm", &multiply<1>},
    {"addmm_", &multiply<1>},
    {"_addmm_activation", &multiply<1>},
    {"baddbmm", &multiply<1>},
    {"baddbmm_", &multiply<1>},
    {"addbmm", &multiply<1>},
    {"addbmm_", &multiply<1>},
    {"addmv", &multiply<1>},
    {"addmv_", &multiply<1>},
    {"linear", &linear},
    {"convolution", &convolution},
    {"convolution_backward", &convolution_backward},
    {"_scaled_dot_product_flash_attention_for_cpu", &attend},
    {"_scaled_dot_product_flash_attention_for_cpu_backward", &attend_backward},
};

const std::unordered_set<std::string_view> kSelecting = {
    "embedding", "gather", "index", "index_select", "take",
};

const std::unordered_set<std::string_view> kScattering = {
    "_index_put_impl_", "index_add_",   "index_copy_",     "index_fill_", "index_put_",
    "scatter_",         "scatter_add_", "scatter_reduce_",
};

const std::unordered_set<std::string_view> kOverwriting = {
    "bernoulli_", "exponential_", "fill_", "normal_", "random_", "uniform_", "zero_",
};

// "aten::addmm.out" is addmm.
std::string_view base_of(std::string_view name) {
  name.remove_prefix(name.find("::") + 2);
  return name.substr(0, name.find('.'));
}

bool is_here(const Tensor& tensor) { return tensor.defined() && !tensor.is_cpu(); }

// An expanded tensor has more elements than memory.
uint64_t bytes_of(const Tensor& tensor) {
  if (tensor.is_sparse()) return tensor._indices().nbytes() + tensor._values().nbytes();
  const uint64_t nbytes = static_cast<uint64_t>(tensor.numel()) * tensor.element_size();
  return tensor.has_storage() ? std::min<uint64_t>(nbytes, tensor.storage().nbytes()) : nbytes;
}

uint64_t bytes_of(const IValue& value) {
  uint64_t sum = 0;
  for_each_tensor(value, [&](const Tensor& tensor) {
    if (is_here(tensor)) sum += bytes_of(tensor);
  });
  return sum;
}

double elements_of(const IValue& value) {
  double sum = 0;
  for_each_tensor(value, [&](const Tensor& tensor) {
    if (is_here(tensor)) sum += elements(tensor);
  });
  return sum;
}

}  // namespace

WorkRule::WorkRule(const std::string& name) {
  const std::string_view base = base_of(name);
  const auto formula = name.starts_with("aten::") ? kFormulas.find(base) : kFormulas.end();
  if (formula != kFormulas.end()) formula_ = formula->second;
  selects_ = kSelecting.contains(base);
  scatters_ = kScattering.contains(base);
  overwrites_ = kOverwriting.contains(base) || name.ends_with(".out") || name.ends_with("_out");
}

Work WorkRule::operator()(const Values& arguments, const std::vector<bool>& written,
                          const Values& results) const {
  uint64_t read = 0, changed = 0, made = 0;
  double elements_written = 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    (written[i] ? changed : read) += bytes_of(arguments[i]);
    if (written[i]) elements_written += elements_of(arguments[i]);
  }
  for (const IValue& result : results) {
    made += bytes_of(result);
    elements_written += elements_of(result);
  }
  if (selects_ && !arguments.empty()) {
    const uint64_t source = bytes_of(arguments[0]);
    read -= source - std::min(source, made + (overwrites_ ? changed : 0));
  }
  if (scatters_) changed = std::min(changed, read);
  if (!overwrites_) changed *= 2;
  return {formula_ != nullptr ? formula_(arguments, results) : elements_written,
          read + changed + made};
}

}  // namespace pipellm
