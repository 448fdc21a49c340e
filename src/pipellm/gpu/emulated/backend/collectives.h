// Collectives that reduce device tensors, over Gloo.
#pragma once

namespace pipellm {

// A CPU build of torch has Gloo for CUDA tensors except where it reduces them: those collectives are
// registered and crash. Here they go through the host, and are over when the call returns.
void register_collectives();

}  // namespace pipellm
