#include "emulator/cost_model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace pipellm {

Curve::Curve(std::vector<Knot> knots) : knots_(std::move(knots)) {
  for (std::size_t i = 1; i < knots_.size(); ++i) {
    if (knots_[i].bytes <= knots_[i - 1].bytes) {
      throw std::invalid_argument("a curve's knots must increase in bytes");
    }
  }
}

Nanoseconds Curve::operator()(std::uint64_t nbytes) const {
  if (knots_.empty()) return 0;
  const auto x = static_cast<double>(nbytes);
  if (knots_.size() == 1 || x <= knots_.front().bytes) {
    return std::llround(knots_.front().nanoseconds);
  }
  auto right = std::upper_bound(knots_.begin(), knots_.end(), x,
                                [](double value, const Knot& knot) { return value < knot.bytes; });
  if (right == knots_.end()) --right;
  const auto left = right - 1;
  const double slope = (right->nanoseconds - left->nanoseconds) / (right->bytes - left->bytes);
  return std::llround(left->nanoseconds + slope * (x - left->bytes));
}

}  // namespace pipellm
