// One copy of contiguous bytes, as the program asked for it.
#pragma once

#include <cstdint>

#include "base/direction.h"
#include "link/driver_api.h"

namespace pipellm {

static_assert(int{kH2d} == int{PIPELLM_H2D} && int{kD2h} == int{PIPELLM_D2H});

using Stream = std::int64_t;  // 0 is a device's default one

struct Transfer {
  Direction direction;
  std::uint8_t* device;
  std::uint8_t* host;
  std::uint64_t nbytes;
  Stream stream;
  bool pinned;
  bool asynchronous;

  // Whether the program may touch the host's side as soon as the call returns.
  bool blocking() const { return !asynchronous || !pinned; }
};

inline const void* host_side(const PipellmCopy& copy) {
  return copy.direction == PIPELLM_H2D ? copy.source : copy.destination;
}

// `pinned`: whether the host's side is, in truth.
inline Transfer transfer_of(const PipellmCopy& copy, bool pinned) {
  const bool h2d = copy.direction == PIPELLM_H2D;
  auto* const source = static_cast<std::uint8_t*>(const_cast<void*>(copy.source));
  auto* const destination = static_cast<std::uint8_t*>(copy.destination);
  return {.direction = static_cast<Direction>(copy.direction),
          .device = h2d ? destination : source,
          .host = h2d ? source : destination,
          .nbytes = copy.nbytes,
          .stream = copy.stream,
          .pinned = pinned,
          .asynchronous = copy.asynchronous != 0};
}

}  // namespace pipellm
