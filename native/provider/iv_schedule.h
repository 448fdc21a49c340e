// Which IVs a caller will use next, learned from those that it has used.
//
// NVIDIA's driver numbers its messages: bytes 0-3 of an IV are a little-endian counter, and all 12
// bytes are XORed with a mask that nobody else knows (docs/facts.md). Neither has to be known. Two
// IVs in a row differ by c ^ (c + 1), which is as many low bits as c has ones at its end, and one
// more. So every step tells the lowest bits of the counter, and what lies above them matters only
// when a carry comes that far, which tells it again.
#pragma once

#include <array>
#include <cstdint>

namespace pipellm::provider {

using Iv = std::array<std::uint8_t, 12>;

// Pure: no clock, no lock, no key.
class IvSchedule {
 public:
  // Of the next message of the same key.
  void observe(const Iv& iv);

  // Whether the last few IVs were what `after` would have said.
  bool known() const { return foreseen_ >= kEnough; }

  // The IV of the message that comes so many after the last one observed.
  Iv after(std::uint32_t messages) const;

 private:
  static constexpr std::uint32_t kEnough = 4;

  Iv last_{};
  std::uint32_t counter_ = 0;   // of last_, as far as it is known; the mask takes up the rest
  std::uint32_t foreseen_ = 0;  // IVs in a row
};

}  // namespace pipellm::provider
