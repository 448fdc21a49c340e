#include "operator_plan.h"

#include <ATen/core/enum_tag.h>

namespace pipellm {

OperatorPlan::OperatorPlan(const c10::OperatorHandle& op)
    : name(c10::toString(op.operator_name())), work(name) {
  const c10::FunctionSchema& schema = op.schema();
  arguments = schema.arguments().size();
  reads_back =
      op.hasTag(at::Tag::dynamic_output_shape) || op.hasTag(at::Tag::data_dependent_output);

  for (size_t i = 0; i < arguments; ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    const c10::AliasInfo* alias = argument.alias_info();
    written.push_back(alias != nullptr && alias->isWrite());
    const auto optional = argument.type()->cast<c10::OptionalType>();
    const auto type = optional ? optional->getElementType() : argument.type();
    if (type->kind() == c10::TypeKind::GeneratorType) generator = static_cast<int>(i);
  }

  for (const c10::Argument& result : schema.returns()) {
    const c10::AliasInfo* alias = result.alias_info();
    int argument = kNone;
    if (alias != nullptr && alias->isWrite()) {
      for (size_t i = 0; i < arguments && argument == kNone; ++i) {
        const c10::AliasInfo* other = schema.arguments()[i].alias_info();
        if (other != nullptr && other->beforeSets() == alias->beforeSets()) {
          argument = static_cast<int>(i);
        }
      }
    }
    returned_argument.push_back(argument);
    is_view = is_view || (alias != nullptr && !alias->isWrite());
  }
}

}  // namespace pipellm
