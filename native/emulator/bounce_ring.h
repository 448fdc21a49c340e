// The bounce buffer: system memory that host and GPU share, and that everybody may read.
//
// It is a memory file of its own, so that an outsider (a test, a curious researcher) can map it from
// another process and see just what the bus would show. Nothing secret is ever written here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "crypto/aead.h"
#include "crypto/channel.h"

namespace pipellm {

// One message in the open: ciphertext, tag beside it (16-byte aligned), IV (D2H only).
struct alignas(4096) BounceSlot {
  std::uint8_t ciphertext[kMessageBytes];
  alignas(16) Tag tag;
  Iv iv;
  std::uint32_t nbytes;
};

// Opens a D2H message on the host's side. The IV came over the bus: it must be the one that this
// message has to carry, or an old message could be played again. IV and tag are copied out first, so
// that nobody can change them after the check. False: not what the device sealed.
[[nodiscard]] bool open_arrived(Endpoint& endpoint, std::uint32_t number, const BounceSlot& slot,
                                std::size_t nbytes, std::uint8_t* plaintext);

// Ring of slots for one direction. Owns the mapping; who may touch which slot is the context's
// business (a slot is free again once the message before it in the ring has been consumed).
class BounceRing {
 public:
  explicit BounceRing(std::size_t slots);  // throws std::system_error
  ~BounceRing();
  BounceRing(const BounceRing&) = delete;
  BounceRing& operator=(const BounceRing&) = delete;

  std::size_t slots() const { return slots_; }
  BounceSlot& operator[](std::uint64_t message) const { return mapping_[message % slots_]; }
  int file_descriptor() const { return fd_; }

 private:
  std::size_t slots_;
  int fd_;
  BounceSlot* mapping_;
};

}  // namespace pipellm
