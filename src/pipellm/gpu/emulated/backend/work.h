// How much an operator computes and how many bytes it touches, by its name and its tensors' shapes.
// Asked for only while a trace is kept.
#pragma once

#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

namespace pipellm {

struct Work {
  double flops = 0;     // a multiply-add is two; elements written, where no formula is known
  uint64_t nbytes = 0;  // of device memory, read and written
};

// What is known of an operator by its name.
class WorkRule {
 public:
  explicit WorkRule(const std::string& name);  // "aten::addmm.out"

  // `written`: per argument, whether the operator writes to it. `results`: those that are none of the
  // arguments. What lies on the host counts for nothing.
  Work operator()(const std::vector<c10::IValue>& arguments, const std::vector<bool>& written,
                  const std::vector<c10::IValue>& results) const;

 private:
  using Formula = double (*)(const std::vector<c10::IValue>& arguments,
                             const std::vector<c10::IValue>& results);

  Formula formula_ = nullptr;
  bool selects_ = false;     // reads no more of its source than its result has
  bool scatters_ = false;    // writes no more to its target than its values have
  bool overwrites_ = false;  // does not read what it writes to
};

}  // namespace pipellm
