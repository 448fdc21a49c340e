// Random bytes for generated IVs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pipellm::provider {

// The kernel's: the module's own libcrypto has a generator too, but that one would read the
// process's OpenSSL configuration when first used, and so load this provider again.
[[nodiscard]] bool fill_with_random(std::uint8_t* data, std::size_t nbytes);

}  // namespace pipellm::provider
