// What the boxed kernel needs to know of an operator, read from its schema once.
#pragma once

#include "work.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

namespace pipellm {

struct OperatorPlan {
  explicit OperatorPlan(const c10::OperatorHandle& op);

  static constexpr int kNone = -1;

  std::string name;
  size_t arguments = 0;
  // A view: only metadata changes, nothing runs on the device.
  bool is_view = false;
  // Its result's shape or value depends on the data, so CUDA hands the host a few bytes of it.
  bool reads_back = false;
  // Per argument: whether the operator writes to it.
  std::vector<bool> written;
  // Per return: the argument that it is (in-place and out= operators), or kNone.
  std::vector<int> returned_argument;
  // The argument that takes a random number generator, or kNone.
  int generator = kNone;
  WorkRule work;
};

}  // namespace pipellm
