// CUDA hooks: what the CPU half of PyTorch asks of CUDA (is it there, pinned memory, generators).
#pragma once

namespace pipellm {

void install_hooks();

}  // namespace pipellm
