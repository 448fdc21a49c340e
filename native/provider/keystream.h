// An update with keystream that was made before: one XOR, and the hash of the ciphertext.
#pragma once

#include <intel-ipsec-mb.h>

#include <cstddef>
#include <cstdint>

#include "gcm.h"
#include "ipsec_mb.h"

namespace pipellm::provider {

inline constexpr std::size_t kMostKeystreamAtOnce = 64 << 10;

// Writes the keystream that follows `state`, at most so much of it, and moves the state on.
void make_keystream(const IpsecMb& library, const gcm_key_data& key, gcm_context_data& state,
                    std::uint8_t* keystream, std::size_t nbytes);

// What library.update(direction)(key, state, output, input, nbytes) does, for a state between two
// blocks. `keystream` is what follows the state: as many bytes, rounded down to whole blocks.
void update_with_keystream(const IpsecMb& library, Direction direction, const gcm_key_data& key,
                           gcm_context_data& state, std::uint8_t* output, const std::uint8_t* input,
                           std::size_t nbytes, const std::uint8_t* keystream);

}  // namespace pipellm::provider
