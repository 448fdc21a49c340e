// How fast this machine seals and copies. Bytes per second, over 1 MiB messages; the best of the
// parts that the time is cut into, since noise only ever slows a loop down.
#pragma once

#include <cstddef>

#include "aead.h"

namespace pipellm {

double measure_seal(Engine engine, double seconds, std::size_t threads = 1);
double measure_memcpy(double seconds);

}  // namespace pipellm
