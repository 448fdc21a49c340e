// The primitive: AES-GCM, one message at a time, from a library.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace pipellm::provider {

inline constexpr std::size_t kBlockBytes = 16;

using Block = std::array<std::uint8_t, kBlockBytes>;
using Bytes = std::span<const std::uint8_t>;

enum class Direction { kEncrypt, kDecrypt };

// A key and the message that is under way with it. One thread at a time. The key and its schedule
// are wiped by the next key and by destruction.
//
// The order of calls is the caller's duty: a key; then per message an IV, additional data, data,
// and one of the two ends. Functions that return bool fail only if the library does.
class Gcm {
 public:
  virtual ~Gcm() = default;
  virtual std::unique_ptr<Gcm> clone() const = 0;  // nullptr if the library cannot

  [[nodiscard]] virtual bool set_key(Bytes key) = 0;
  [[nodiscard]] virtual bool start(Bytes iv) = 0;                 // any length but zero
  [[nodiscard]] virtual bool authenticate(Bytes additional) = 0;  // in pieces of any length

  // In pieces of any length. `output` is as long as `input`, and is the same memory or disjoint.
  [[nodiscard]] virtual bool update(Direction direction, Bytes input, std::uint8_t* output) = 0;

  [[nodiscard]] virtual bool make_tag(Block& tag) = 0;
  // Compares as many bytes as `tag` has, in constant time. After a mismatch the message may still
  // be updated, but not ended again.
  [[nodiscard]] virtual bool check_tag(Bytes tag) = 0;
};

// The library that this process uses: chosen when the provider is loaded, by what is built in, what
// the CPU has, and a self-check.
class Primitive {
 public:
  static const Primitive& chosen();

  const std::string name;  // with the variant, as in "ipsec-mb 1.3.0, AVX512"
  std::unique_ptr<Gcm> (*const make)(std::size_t key_bytes);  // 16, 24 or 32; nullptr if it cannot
};

}  // namespace pipellm::provider
