#pragma once

namespace pipellm::cudart {

// Whether the machine's GPUs run in confidential-computing mode, by what the driver's management
// library says. False where it cannot be asked: then CUDA does everything as it always did.
bool confidential_computing_is_on();

}  // namespace pipellm::cudart
