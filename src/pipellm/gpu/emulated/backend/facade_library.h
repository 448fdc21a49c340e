// What the Python facade (the `cuda` package beside this folder) calls, as torch.ops.pipellm.*:
// that way the GIL is released, and a failing driver raises torch's own exceptions.
#pragma once

namespace pipellm {

void register_facade_library();

}  // namespace pipellm
