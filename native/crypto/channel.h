// The secure channel between host and GPU, as NVIDIA's: per direction a key and an IV mask, and one
// strict order of messages that both sides count (facts: the protocol, read in NVIDIA's open
// kernel modules).
//
// This file is the only place that derives or holds a session's keys.
//
//   IV before masking: bytes 0-3  little-endian message counter, incremented *before* each message
//                      bytes 4-11 little-endian channel counter
//   IV on the wire:    those 12 bytes XOR the direction's mask
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>

#include "base/direction.h"
#include "base/secret.h"
#include "crypto/aead.h"

namespace pipellm {

inline constexpr std::size_t kMessageBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMasterBytes = 32;

// Messages that so many bytes take, and the length of the one numbered `index`, from 0.
inline std::uint32_t messages_of(std::uint64_t nbytes) {
  return static_cast<std::uint32_t>((nbytes + kMessageBytes - 1) / kMessageBytes);
}
inline std::size_t length_of_message(std::uint64_t nbytes, std::uint32_t index) {
  return static_cast<std::size_t>(
      std::min<std::uint64_t>(kMessageBytes, nbytes - std::uint64_t{index} * kMessageBytes));
}

// The counter has no next value. Going on would use an IV twice, so nothing is sent any more.
class CounterExhausted : public std::runtime_error {
 public:
  explicit CounterExhausted(Direction direction);
};

// One side of one direction: its copy of the key, the mask and the message counter.
// Not locked: whoever counts (`next`) must be the only one that does. Sealing and opening under a
// number already taken is safe from any thread, which is what lets a pool do it.
class Endpoint {
 public:
  Endpoint(Direction direction, Engine engine, std::span<const std::uint8_t, kMasterBytes> master);

  Direction direction() const { return direction_; }
  std::uint32_t last() const { return secret_->counter; }  // number of the last message; 0: none yet

  // Takes the next message number, or the next `count` numbers and returns the first. Throws
  // CounterExhausted instead of wrapping, and then takes none.
  std::uint32_t next() { return take(1); }
  std::uint32_t take(std::uint32_t count);

  Iv iv(std::uint32_t number) const;
  // The inverse, for D2H, where the IV travels with the message. 0 (never a message's number) when
  // the IV does not belong to this channel.
  std::uint32_t number_of(const Iv& iv) const;

  void seal(std::uint32_t number, std::span<const std::uint8_t> plaintext, std::uint8_t* ciphertext,
            Tag& tag) {
    aead_->seal(iv(number), plaintext, ciphertext, tag);
  }
  [[nodiscard]] bool open(std::uint32_t number, std::span<const std::uint8_t> ciphertext,
                          std::uint8_t* plaintext, const Tag& tag) {
    return aead_->open(iv(number), ciphertext, plaintext, tag);
  }

  // Tests only: stands shortly before the end of the counter.
  void skip_to(std::uint32_t last) { secret_->counter = last; }

 private:
  struct Schedule {
    std::array<std::uint8_t, kIvBytes> mask;
    std::uint32_t counter;
    std::uint64_t channel_counter;
  };
  Direction direction_;
  Secret<Schedule> secret_;
  std::unique_ptr<Aead> aead_;
};

// One party's two endpoints. Host and GPU each make their own from the same master secret.
struct SecureChannel {
  SecureChannel(Engine engine, std::span<const std::uint8_t, kMasterBytes> master)
      : h2d(kH2d, engine, master), d2h(kD2h, engine, master) {}

  Endpoint h2d;
  Endpoint d2h;
};

// The master secret that NVIDIA's parties agree on over SPDM; here fresh random bytes. It lives only
// as long as it takes both parties to derive their keys.
class MasterSecret {
 public:
  MasterSecret();  // throws if the system has no randomness to give
  std::span<const std::uint8_t, kMasterBytes> view() const { return *secret_; }

 private:
  Secret<std::array<std::uint8_t, kMasterBytes>> secret_;
};

}  // namespace pipellm
