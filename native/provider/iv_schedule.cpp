#include "iv_schedule.h"

#include <algorithm>
#include <bit>

namespace pipellm::provider {

namespace {

// In the order of the counter's bytes.
std::uint32_t counter_bytes(const Iv& iv) {
  return static_cast<std::uint32_t>(iv[0]) | static_cast<std::uint32_t>(iv[1]) << 8 |
         static_cast<std::uint32_t>(iv[2]) << 16 | static_cast<std::uint32_t>(iv[3]) << 24;
}

}  // namespace

void IvSchedule::observe(const Iv& iv) {
  const std::uint32_t step = counter_bytes(last_) ^ counter_bytes(iv);
  const bool same_channel = std::equal(iv.begin() + 4, iv.end(), last_.begin() + 4);
  if (same_channel && step == (counter_ ^ (counter_ + 1))) {
    foreseen_ += foreseen_ < kEnough;
    ++counter_;
  } else if (same_channel && step != 0 && (step & (step + 1)) == 0) {
    // One more, but the carry went another way: the counter before ended in these ones, after a 0.
    const auto ones = static_cast<unsigned>(std::popcount(step)) - 1;
    counter_ = (counter_ & ~step) | ((std::uint32_t{1} << ones) - 1);
    ++counter_;
    foreseen_ = 0;
  } else {
    counter_ = 1;  // a channel's first message has this number
    foreseen_ = 0;
  }
  last_ = iv;
}

Iv IvSchedule::after(std::uint32_t messages) const {
  const std::uint32_t changed = counter_ ^ (counter_ + messages);
  Iv iv = last_;
  for (unsigned byte = 0; byte < 4; ++byte) {
    iv[byte] = static_cast<std::uint8_t>(iv[byte] ^ (changed >> (8 * byte)));
  }
  return iv;
}

}  // namespace pipellm::provider
