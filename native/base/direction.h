// Which way a copy goes, seen from the host. The numbers are those of a driver's table.
#pragma once

namespace pipellm {

enum Direction : int { kH2d = 0, kD2h = 1 };  // unscoped: it is an index, too

inline const char* direction_name(Direction direction) {
  return direction == kH2d ? "H2D" : "D2H";
}

}  // namespace pipellm
