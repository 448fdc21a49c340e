// A transfer that several copies share, which somebody asked for: it crosses in one piece to a place of
// ours, and from there the device copies each on, on its stream.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "prefetch/gates.h"
#include "prefetch/hold.h"
#include "prefetch/spare.h"
#include "prefetch/staging.h"

namespace pipellm::prefetch {

// Open for more copies until the copy thread takes it, or it is full. What changes meanwhile is guarded
// by Transfers.
struct Gather {
  // Memory that stays as it is until the gate is open, read when the transfer begins.
  struct Part {
    const std::uint8_t* source;
    std::uint64_t offset, nbytes;
    Hold hold;
  };

  Gather(std::shared_ptr<Place> ours, std::shared_ptr<Gate> opening, std::unique_ptr<Staging> memory)
      : place(std::move(ours)),
        gate(std::move(opening)),
        bytes(std::move(memory)),
        capacity(place->nbytes()) {}

  const std::shared_ptr<Place> place;
  const std::shared_ptr<Gate> gate;
  std::unique_ptr<Staging> bytes;  // what crosses, at the same offsets as in the place
  const std::uint64_t capacity;
  std::uint64_t used = 0;
  std::vector<Part> parts;
  bool captured = false;     // some of it is in `bytes` already
  std::size_t filling = 0;   // threads that capture
  // Whether somebody's stream waits for it, or is about to: it goes as soon as it can.
  std::atomic<bool> asked{false};
};

}  // namespace pipellm::prefetch
