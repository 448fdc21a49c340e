// Sealing ahead of requests, on the pool, into the arena. It is told what to seal and under which
// numbers; whether that was wise is the planner's business.
//
// A chunk's way:   queued --> sealing --> sealed --> sent   (`move_to`)
//                     |          |           `-----> wiped  (`relinquish`)
//                     `----------'---> unfit (its memory cannot be watched, is gone, or is not to be
//                                      read ahead)
//
// What is sent is what the memory holds. It is asked twice, once the program has asked for the
// transfer: whether a write was noticed, or the promise withdrawn that there would be none, which costs
// little and tells the planner early; and whether the bytes have the fingerprint of those that were
// sealed. Only the second is certain: writes through pages that others had pinned before they were
// watched (direct I/O, io_uring's fixed buffers, RDMA) go past the page tables, and so past every
// watch, and a promise may be broken.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"
#include "base/pool.h"
#include "crypto/channel.h"
#include "emulator/bounce_ring.h"
#include "memory/arena.h"
#include "memory/declarations.h"
#include "memory/fingerprint.h"
#include "memory/write_tracker.h"

namespace pipellm {

using Speculation = std::uint64_t;

// What became of what was sealed of a transfer ahead of its request.
enum class Became : int {
  kClean,  // it was sent
  kLate,   // not all of it was sealed when it was asked for
  kStale,  // the memory had changed, or what was sealed was not fit to be sent: it was sealed anew
};

// Internally locked.
class SealAhead {
 public:
  // All but `arena_messages` outlive this object.
  SealAhead(Endpoint& endpoint, Pool& pool, WriteTracker& tracker, const Declarations& declarations,
            Clock& clock, Counters& counters, std::size_t arena_messages);
  ~SealAhead();  // waits for what is being sealed

  // Chunks [first, last) of the `nbytes` at `address`, chunk i under number `number` + i. The first
  // call for an id begins a speculation, later ones add chunks at its end.
  void speculate(Speculation id, const std::uint8_t* address, std::uint64_t nbytes,
                 std::uint32_t first, std::uint32_t last, std::uint32_t number);

  // Called when the program asks for the transfer, and so leaves its memory alone from now on:
  // whether the plaintext is as it was then, as far as a few chunks tell. `move_to` looks at the rest.
  bool unchanged(Speculation id);
  // Whether every chunk of so many is sealed.
  bool whole(Speculation id, std::uint32_t count) const;

  // Forgets the speculation and wipes what was sealed of it and not moved; a chunk being sealed is
  // wiped when done. Also the end of a speculation whose chunks were all moved.
  void relinquish(Speculation id);
  void relinquish_all();

  // Puts chunk `index` into a bounce slot: `moved`. Else it was not sealed, or from a plaintext that has
  // changed: seal it now, then. Waits for one that is being sealed. Once the program has asked for the
  // transfer.
  struct Moved {
    bool moved;
    Became became;
  };
  Moved move_to(BounceSlot& slot, Speculation id, std::uint32_t index);

  // Before the memory is freed: when this returns nobody reads it any more.
  void stop_reading(const void* start, std::uint64_t nbytes);

  // What has happened since the last time: how many of a speculation's first chunks are sealed, or
  // that it cannot be sealed.
  enum class Trouble { kNone, kUnfit, kFull };
  struct News {
    Speculation id;
    std::uint32_t sealed;
    Trouble trouble;
  };
  std::vector<News> news();

  std::size_t arena_in_use() const { return arena_.in_use(); }

  // Tests only: from now on all bytes are the same. Shows that a test can fail.
  void go_blind() { blind_ = true; }

 private:
  enum class State { kQueued, kSealing, kSealed, kUnfit, kGone };
  struct Chunk {
    const std::uint8_t* address;
    std::size_t nbytes;
    std::uint32_t number;
    State state = State::kQueued;
    bool dropped = false;    // while it was being sealed
    bool unwritten = false;  // found by `unchanged`, after it was sealed
    bool compared = false;   // likewise: the fingerprint is that of the memory
    SealedMessage* message = nullptr;
    Nanoseconds took = 0;  // to seal it
    Generation promise = 0;  // 0: none, but a watch
    std::shared_ptr<WriteTracker::Watch> watch;
    Fingerprint fingerprint;  // of the plaintext that was sealed
  };
  using Chunks = std::vector<std::shared_ptr<Chunk>>;
  struct Entry {
    Chunks chunks;
    bool has_news = false;
    Trouble trouble = Trouble::kNone;
  };

  void seal(Speculation id, const std::shared_ptr<Chunk>& chunk);
  bool seal_chunk(Chunk& chunk);  // false if its memory cannot be watched or read
  bool unwritten(const Chunk& chunk, const WriteTracker::Watch* watch) const;
  bool same_bytes(const Chunk& chunk) const;
  void drop(Chunk& chunk);
  void tell(Speculation id);
  void wipe_later(SealedMessage* message);

  Endpoint& endpoint_;
  Pool& pool_;
  WriteTracker& tracker_;
  const Declarations& declarations_;
  Clock& clock_;
  Counters& counters_;
  Arena arena_;
  std::atomic<bool> blind_{false};

  mutable std::mutex mutex_;  // guards all below, and every chunk's state
  std::condition_variable changed_;
  std::unordered_map<Speculation, Entry> entries_;
  std::vector<Speculation> with_news_;
  std::vector<Chunk*> sealing_;  // their memory is being read
  std::size_t jobs_ = 0;         // submitted and not over
};

}  // namespace pipellm
