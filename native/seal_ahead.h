// Sealing ahead of requests, on the pool, into the arena. It is told what to seal and under which
// numbers; whether that was wise is the planner's business.
//
// A chunk's way:   queued --> sealing --> sealed --> sent   (`move_to`)
//                     |          |           `-----> wiped  (`relinquish`)
//                     `----------'---> unfit (its memory cannot be watched, or is gone)
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "arena.h"
#include "bounce_ring.h"
#include "channel.h"
#include "clock.h"
#include "counters.h"
#include "immutable_memory.h"
#include "pinned_memory.h"
#include "pool.h"
#include "write_tracker.h"

namespace pipellm {

using Speculation = std::uint64_t;

// Internally locked.
class SealAhead {
 public:
  // All but `arena_messages` outlive this object.
  SealAhead(Endpoint& endpoint, Pool& pool, WriteTracker& tracker, const PinnedMemory& pinned,
            const ImmutableMemory& immutable, Clock& clock, Counters& counters,
            std::size_t arena_messages);
  ~SealAhead();  // waits for what is being sealed

  // Chunks [first, last) of the `nbytes` at `address`, chunk i under number `number` + i. The first
  // call for an id begins a speculation, later ones add chunks at its end.
  void speculate(Speculation id, const std::uint8_t* address, std::uint64_t nbytes,
                 std::uint32_t first, std::uint32_t last, std::uint32_t number);

  // Called when the program asks for the transfer, and so leaves its memory alone from now on:
  // whether the plaintext is as it was then, of the chunks that go first. `move_to` looks at the rest.
  bool unchanged(Speculation id);

  // Forgets the speculation and wipes what was sealed of it and not moved; a chunk being sealed is
  // wiped when done. Also the end of a speculation whose chunks were all moved.
  void relinquish(Speculation id);

  // Puts chunk `index` into a bounce slot: true. False if it was not sealed, or from a plaintext that
  // has changed: seal it now, then. Waits for one that is being sealed. After `unchanged` only.
  bool move_to(BounceSlot& slot, Speculation id, std::uint32_t index);

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

 private:
  enum class State { kQueued, kSealing, kSealed, kUnfit, kGone };
  struct Chunk {
    const std::uint8_t* address;
    std::size_t nbytes;
    std::uint32_t number;
    State state = State::kQueued;
    bool dropped = false;    // while it was being sealed
    bool validated = false;  // by `unchanged`, after it was sealed
    SealedMessage* message = nullptr;
    Nanoseconds took = 0;  // to seal it
    std::unique_ptr<WriteTracker::Watch> watch;  // none: declared immutable
  };
  using Chunks = std::vector<std::shared_ptr<Chunk>>;
  struct Entry {
    Chunks chunks;
    bool has_news = false;
    Trouble trouble = Trouble::kNone;
  };

  void seal(Speculation id, const std::shared_ptr<Chunk>& chunk);
  bool seal_chunk(Chunk& chunk);  // false if its memory cannot be watched or read
  bool unchanged(const Chunk& chunk, const WriteTracker::Watch* watch) const;
  void drop(Chunk& chunk);
  void tell(Speculation id);
  void wipe_later(SealedMessage* message);

  Endpoint& endpoint_;
  Pool& pool_;
  WriteTracker& tracker_;
  const PinnedMemory& pinned_;
  const ImmutableMemory& immutable_;
  Clock& clock_;
  Counters& counters_;
  Arena arena_;

  mutable std::mutex mutex_;  // guards all below, and every chunk's state
  std::condition_variable changed_;
  std::unordered_map<Speculation, Entry> entries_;
  std::vector<Speculation> with_news_;
  std::vector<Chunk*> sealing_;  // their memory is being read
  std::size_t jobs_ = 0;         // submitted and not over
};

}  // namespace pipellm
