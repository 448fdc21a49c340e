// Whether memory still holds the bytes that were sealed, by a 128-bit hash of them (XXH3, from
// libxxhash).
//
// The hash is seeded anew in each process and never leaves it. Other bytes with the same hash are as
// good as impossible by chance, 2^-128 for each comparison; against somebody who chooses them on
// purpose and can see hashes it is no defence, for XXH3 is not a cryptographic hash.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pipellm {

struct Fingerprint {
  std::uint64_t low = 0, high = 0;
  bool operator==(const Fingerprint&) const = default;
};

Fingerprint fingerprint(const void* start, std::size_t nbytes);

}  // namespace pipellm
