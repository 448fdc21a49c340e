// AES-256-GCM as NVIDIA's channel uses it: 12-byte IV, 16-byte tag, no additional data.
//
// The primitive is always a library's. Which one is the fastest depends on the CPU and on what is
// installed, so the choice is measured at start (measure.h) and never assumed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace pipellm {

inline constexpr std::size_t kKeyBytes = 32;
inline constexpr std::size_t kIvBytes = 12;
inline constexpr std::size_t kTagBytes = 16;

using Iv = std::array<std::uint8_t, kIvBytes>;
using Tag = std::array<std::uint8_t, kTagBytes>;
using KeyView = std::span<const std::uint8_t, kKeyBytes>;

enum class Engine { kOpenssl, kIpsecMb };

std::string_view engine_name(Engine engine);
std::vector<Engine> engines();  // those that this build has; OpenSSL is always one

// One key. Every call is safe from any thread, at the same time. Input and output are equal in
// length (at most 1 GiB) and either the same memory or disjoint.
class Aead {
 public:
  virtual ~Aead() = default;

  virtual void seal(const Iv& iv, std::span<const std::uint8_t> plaintext, std::uint8_t* ciphertext,
                    Tag& tag) = 0;

  // False when the tag does not match; the output is then wiped, so that a caller which forgets to
  // look still cannot deliver forged bytes.
  [[nodiscard]] virtual bool open(const Iv& iv, std::span<const std::uint8_t> ciphertext,
                                  std::uint8_t* plaintext, const Tag& tag) = 0;
};

std::unique_ptr<Aead> make_aead(Engine engine, KeyView key);  // throws if the engine is not built in

}  // namespace pipellm
