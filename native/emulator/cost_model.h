// What a modelled GPU and its link cost in time. Pure arithmetic; the numbers come from a profile.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/direction.h"

namespace pipellm {

// Time against bytes: straight lines between knots, the last one's slope beyond them.
class Curve {
 public:
  struct Knot {
    double bytes, nanoseconds;
  };
  Curve() = default;  // costs nothing
  explicit Curve(std::vector<Knot> knots);  // throws unless bytes strictly increase

  Nanoseconds operator()(std::uint64_t nbytes) const;

 private:
  std::vector<Knot> knots_;
};

// The share of `total` that falls to `part` of `whole` bytes.
inline Nanoseconds share(Nanoseconds total, std::uint64_t part, std::uint64_t whole) {
  return static_cast<Nanoseconds>(static_cast<double>(total) * static_cast<double>(part) /
                                  static_cast<double>(whole));
}

// One direction of copies from or to one kind of host memory.
struct PathCost {
  Curve engine;               // the copy engine is busy for so long
  std::optional<Curve> call;  // a blocking call takes at least so long (paces a host faster than it)
  Nanoseconds toll = 0;       // fixed host time of a crossing under confidential computing
};

struct CostModel {
  // [direction][pinned]
  std::array<std::array<PathCost, 2>, 2> paths;
  Curve device_copy;       // a copy within device memory keeps its stream busy for so long
  Nanoseconds launch = 0;  // host time of a kernel launch, and of issuing an asynchronous copy
  bool duplex = false;     // each direction has an engine of its own

  const PathCost& path(Direction direction, bool pinned) const {
    return paths[direction][pinned ? 1 : 0];
  }
};

}  // namespace pipellm
