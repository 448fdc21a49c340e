// The chunks of one swap-in on their way into the bounce buffer, prepared by whoever comes first: the
// thread that sends them in order, or the pool.
//
// A job of the pool holds the preparation and nothing else, and may outlive the sending. What a
// chunk's preparation reads (the program's memory) and writes (the bounce buffer) is the sender's to
// lend, until `cancel` has returned: then nobody touches it any more.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <vector>

#include "crypto/channel.h"
#include "emulator/bounce_ring.h"
#include "pipelined/seal_ahead.h"

namespace pipellm {

// Internally locked, but for `allow`, `finish` and `cancel`, which are the sender's.
class Preparation {
 public:
  // Chunk i goes out as message `number` + i. What is passed by reference, and the plaintext, lasts
  // until `cancel`.
  Preparation(Endpoint& endpoint, BounceRing& ring, SealAhead& seal_ahead,
              const std::uint8_t* plaintext, std::uint64_t nbytes, std::uint32_t number,
              std::optional<Speculation> from);

  // Chunks below `limit` have a slot to go to.
  void allow(std::uint32_t limit) { allowed_.store(limit, std::memory_order_release); }

  // Prepares one chunk that nobody has claimed; false if there is none.
  bool help();

  // Returns when chunk `index`, which is allowed, is prepared. Throws what its preparation threw.
  void finish(std::uint32_t index);

  // Of all that was prepared by now, the worst.
  Became became() const { return became_.load(); }

  // No chunk is begun from now on; returns when those that were begun are done.
  void cancel() noexcept;

 private:
  enum : int { kOpen, kClaimed, kDone, kFailed, kCancelled };

  bool claim(std::uint32_t index);
  void prepare(std::uint32_t index);

  Endpoint& endpoint_;
  BounceRing& ring_;
  SealAhead& seal_ahead_;
  const std::uint8_t* const plaintext_;
  const std::uint64_t nbytes_;
  const std::uint32_t number_;
  const std::optional<Speculation> from_;

  std::vector<std::atomic<int>> states_;
  std::atomic<std::uint32_t> allowed_{0};
  std::atomic<std::uint32_t> first_{0};
  std::atomic<Became> became_{Became::kClean};
  std::mutex mutex_;  // guards what follows
  std::exception_ptr failure_;
};

// Cancels at the end of the sending, however it ends.
class CancelAtEnd {
 public:
  explicit CancelAtEnd(Preparation& preparation) : preparation_(preparation) {}
  ~CancelAtEnd() { preparation_.cancel(); }
  CancelAtEnd(const CancelAtEnd&) = delete;
  CancelAtEnd& operator=(const CancelAtEnd&) = delete;

 private:
  Preparation& preparation_;
};

}  // namespace pipellm
