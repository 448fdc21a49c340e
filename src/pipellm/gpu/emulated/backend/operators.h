// Which aten operator is what on the device.
#pragma once

namespace pipellm {

void register_operators();

}  // namespace pipellm
