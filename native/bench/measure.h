// How fast this machine seals and copies. Bytes per second, over 1 MiB messages; the best of the
// parts that the time is cut into, since noise only ever slows a loop down.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/direction.h"
#include "crypto/aead.h"
#include "link/driver_api.h"

namespace pipellm {

double measure_seal(Engine engine, double seconds, std::size_t threads = 1);
double measure_memcpy(double seconds);
double measure_fingerprint(double seconds);

// Blocking copies of `nbytes` between device 0 and host memory of one kind, one after the other as a
// C program's cudaMemcpy: what each took on the emulated clock, and on the wall's. Throws what the
// driver says.
struct CopyTime {
  Nanoseconds emulated, wall;
};
std::vector<CopyTime> measure_copies(const PipellmDriver& driver, Clock& clock, Direction direction,
                                     bool pinned, std::uint64_t nbytes, std::size_t repeats);

}  // namespace pipellm
