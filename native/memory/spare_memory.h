// Whether there is memory to spare for what PipeLLM would only like to have.
#pragma once

#include <string>

namespace pipellm {

// Whether an eighth of the machine's memory, and of what each control group above this process may
// use, could still be taken. What the kernel would give back without harm (clean pages of files)
// counts as free. False if the machine does not say. `root` is where /proc and /sys are, for tests.
bool memory_is_plentiful(const std::string& root = "");

}  // namespace pipellm
