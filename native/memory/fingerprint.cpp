#include "memory/fingerprint.h"

#include <random>

// On x86 the library has a build for each vector width, and picks one when it is asked to by these
// names; its plain functions use SSE2.
#ifdef PIPELLM_XXHASH_DISPATCHES
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

namespace pipellm {

Fingerprint fingerprint(const void* start, std::size_t nbytes) {
  static const std::uint64_t seed = [] {
    std::random_device random;
    return (std::uint64_t{random()} << 32) | random();
  }();
  const XXH128_hash_t hash = XXH3_128bits_withSeed(start, nbytes, seed);
  return {hash.low64, hash.high64};
}

}  // namespace pipellm
