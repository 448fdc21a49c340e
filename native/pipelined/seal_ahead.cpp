#include "pipelined/seal_ahead.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "memory/guarded_copy.h"

namespace pipellm {

namespace {

// As many as have room in the bounce buffer at once: the engine does not wait for the rest.
constexpr std::size_t kLookedAtFirst = 16;

// Room for the plaintext of one message, in a huge page where there are any.
class Snapshot {
 public:
  Snapshot() : bytes_(static_cast<std::uint8_t*>(std::aligned_alloc(kHugePage, kHugePage))) {
    if (bytes_ == nullptr) throw std::bad_alloc();
    (void)madvise(bytes_, kHugePage, MADV_HUGEPAGE);
  }
  ~Snapshot() {
    wipe(bytes_, kMessageBytes);
    std::free(bytes_);
  }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  std::uint8_t* data() const { return bytes_; }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  static_assert(kMessageBytes <= kHugePage);
  std::uint8_t* bytes_;
};

}  // namespace

SealAhead::SealAhead(Endpoint& endpoint, Pool& pool, WriteTracker& tracker,
                     const Declarations& declarations, Clock& clock, Counters& counters,
                     std::size_t arena_messages)
    : endpoint_(endpoint),
      pool_(pool),
      tracker_(tracker),
      declarations_(declarations),
      clock_(clock),
      counters_(counters),
      arena_(arena_messages) {}

SealAhead::~SealAhead() {
  relinquish_all();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return jobs_ == 0; });
}

void SealAhead::speculate(Speculation id, const std::uint8_t* address, std::uint64_t nbytes,
                          std::uint32_t first, std::uint32_t last, std::uint32_t number) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[id];
  for (std::uint32_t i = first; i < last; ++i) {
    const std::uint64_t offset = std::uint64_t{i} * kMessageBytes;
    auto chunk = std::make_shared<Chunk>();
    chunk->address = address + offset;
    chunk->nbytes = static_cast<std::size_t>(std::min<std::uint64_t>(kMessageBytes, nbytes - offset));
    chunk->number = number + i;
    entry.chunks.push_back(chunk);
    if (pool_.submit([this, id, chunk] { seal(id, chunk); })) {
      ++jobs_;
    } else {
      chunk->state = State::kUnfit;
      entry.trouble = Trouble::kFull;
      tell(id);
    }
  }
}

// On a thread of the pool.
void SealAhead::seal(Speculation id, const std::shared_ptr<Chunk>& chunk) {
  std::unique_lock lock(mutex_);
  if (chunk->state == State::kQueued) {
    chunk->message = arena_.take();
    if (chunk->message == nullptr) {
      chunk->state = State::kUnfit;
      if (const auto entry = entries_.find(id); entry != entries_.end()) {
        entry->second.trouble = Trouble::kFull;
      }
    } else {
      chunk->state = State::kSealing;
      sealing_.push_back(chunk.get());
      lock.unlock();
      const Nanoseconds start = clock_.now();
      bool ok = false;
      try {
        ok = seal_chunk(*chunk);
      } catch (const std::exception&) {
        // Without memory to seal with: then at the request.
      }
      lock.lock();
      chunk->took = clock_.now() - start;
      std::erase(sealing_, chunk.get());
      chunk->state = ok ? State::kSealed : State::kUnfit;
      if (ok) {
        counters_.add(Counter::kSealedAheadBytes, static_cast<std::int64_t>(chunk->nbytes));
      } else if (const auto entry = entries_.find(id); entry != entries_.end()) {
        entry->second.trouble = Trouble::kUnfit;
      }
      if (chunk->dropped || !ok) drop(*chunk);
    }
    tell(id);
  }
  --jobs_;
  changed_.notify_all();
}

bool SealAhead::seal_chunk(Chunk& chunk) {
  // Whoever forbids it waits for the chunks that are being sealed, so this one counts as such already.
  if (declarations_.never_ahead.overlaps(chunk.address, chunk.nbytes)) return false;
  // Watched first, then read: a write in between is one more that will be noticed.
  chunk.promise = declarations_.immutable.generation(chunk.address, chunk.nbytes);
  if (chunk.promise == 0) {
    chunk.watch = tracker_.watch(chunk.address, chunk.nbytes);
    if (chunk.watch == nullptr) return false;
  }
  // Read once: what is sealed has to be what the fingerprint is of, whoever writes meanwhile. And the
  // memory may vanish under the reader.
  static thread_local const Snapshot snapshot;
  if (!guarded_copy(snapshot.data(), chunk.address, chunk.nbytes)) return false;
  chunk.fingerprint = fingerprint(snapshot.data(), chunk.nbytes);
  endpoint_.seal(chunk.number, {snapshot.data(), chunk.nbytes}, chunk.message->ciphertext,
                 chunk.message->tag);
  return true;
}

bool SealAhead::unchanged(Speculation id) {
  struct Look {
    std::shared_ptr<Chunk> chunk;
    std::shared_ptr<WriteTracker::Watch> watch;  // its own reference: the chunk may be dropped
  };
  std::vector<Look> looks;
  {
    const std::lock_guard lock(mutex_);
    const auto entry = entries_.find(id);
    if (entry == entries_.end() || entry->second.trouble != Trouble::kNone) return false;
    // `move_to` looks at the others, on the thread that moves each, while the engine is busy.
    for (const auto& chunk : entry->second.chunks) {
      if (looks.size() == kLookedAtFirst) break;
      if (chunk->state == State::kSealed) looks.push_back({chunk, chunk->watch});
    }
  }
  for (const auto& [chunk, watch] : looks) {
    if (!unwritten(*chunk, watch.get())) return false;
    chunk->unwritten = true;
  }
  // The bytes of one chunk: a buffer that is refilled behind our back is mostly refilled from its
  // beginning, and the planner should hear of it.
  if (!looks.empty()) {
    Chunk& first = *looks.front().chunk;
    if (!same_bytes(first)) return false;
    first.compared = true;
  }
  return true;
}

bool SealAhead::whole(Speculation id, std::uint32_t count) const {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  return entry != entries_.end() && entry->second.chunks.size() == count &&
         std::all_of(entry->second.chunks.begin(), entry->second.chunks.end(),
                     [](const auto& chunk) { return chunk->state == State::kSealed; });
}

bool SealAhead::unwritten(const Chunk& chunk, const WriteTracker::Watch* watch) const {
  if (watch != nullptr) return tracker_.unchanged(*watch);
  // Only the promise that stood when it was sealed: under a later one it may have changed before.
  return chunk.promise != 0 &&
         declarations_.immutable.generation(chunk.address, chunk.nbytes) == chunk.promise;
}

// The program has asked for a copy of this memory, so it may be read like that copy's source.
bool SealAhead::same_bytes(const Chunk& chunk) const {
  if (blind_ || fingerprint(chunk.address, chunk.nbytes) == chunk.fingerprint) return true;
  counters_.add(Counter::kUnseenWrites, 1);
  return false;
}

void SealAhead::relinquish(Speculation id) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) return;
  for (const auto& chunk : entry->second.chunks) drop(*chunk);
  entries_.erase(entry);
}

void SealAhead::relinquish_all() {
  const std::lock_guard lock(mutex_);
  for (auto& [id, entry] : entries_) {
    for (const auto& chunk : entry.chunks) drop(*chunk);
  }
  entries_.clear();
}

SealAhead::Moved SealAhead::move_to(BounceSlot& slot, Speculation id, std::uint32_t index) {
  std::unique_lock lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || index >= entry->second.chunks.size()) return {false, Became::kLate};
  const std::shared_ptr<Chunk> chunk = entry->second.chunks[index];  // outlives the entry
  const bool late = chunk->state == State::kQueued || chunk->state == State::kSealing;
  if (chunk->state == State::kQueued) chunk->state = State::kGone;  // quicker sealed by who asks
  changed_.wait(lock, [&] { return chunk->state != State::kSealing; });
  if (chunk->state == State::kUnfit) return {false, Became::kStale};
  if (chunk->state != State::kSealed) return {false, Became::kLate};
  chunk->state = State::kGone;  // to nobody but this thread
  SealedMessage* message = std::exchange(chunk->message, nullptr);
  const std::shared_ptr<WriteTracker::Watch> watch = std::move(chunk->watch);
  lock.unlock();
  if ((!chunk->unwritten && !unwritten(*chunk, watch.get())) ||
      (!chunk->compared && !same_bytes(*chunk))) {
    counters_.add(Counter::kWastedBytes, static_cast<std::int64_t>(chunk->nbytes));
    lock.lock();
    wipe_later(message);
    return {false, Became::kStale};
  }
  std::memcpy(slot.ciphertext, message->ciphertext, chunk->nbytes);
  slot.tag = message->tag;
  counters_.add(Counter::kHiddenNs, chunk->took);
  arena_.give_back(message);
  return {true, late ? Became::kLate : Became::kClean};
}

void SealAhead::stop_reading(const void* start, std::uint64_t nbytes) {
  const auto* begin = static_cast<const std::uint8_t*>(start);
  const auto overlaps = [&](const Chunk& chunk) {
    return chunk.address < begin + nbytes && begin < chunk.address + chunk.nbytes;
  };
  std::unique_lock lock(mutex_);
  for (auto& [id, entry] : entries_) {
    for (const auto& chunk : entry.chunks) {
      if (overlaps(*chunk)) drop(*chunk);
    }
  }
  changed_.wait(lock, [&] {
    return std::none_of(sealing_.begin(), sealing_.end(),
                        [&](const Chunk* chunk) { return overlaps(*chunk); });
  });
}

std::vector<SealAhead::News> SealAhead::news() {
  const std::lock_guard lock(mutex_);
  std::vector<News> all;
  for (const Speculation id : with_news_) {
    const auto found = entries_.find(id);
    if (found == entries_.end()) continue;
    Entry& entry = found->second;
    entry.has_news = false;
    std::uint32_t sealed = 0;
    for (const auto& chunk : entry.chunks) {
      if (chunk->state != State::kSealed) break;
      ++sealed;
    }
    all.push_back({id, sealed, entry.trouble});
  }
  with_news_.clear();
  return all;
}

// With the lock. One that is being sealed is dropped by the thread that seals it.
void SealAhead::drop(Chunk& chunk) {
  if (chunk.state == State::kSealing) {
    chunk.dropped = true;
    return;
  }
  if (chunk.state != State::kGone && chunk.message != nullptr) {
    if (chunk.state == State::kSealed) {
      counters_.add(Counter::kWastedBytes, static_cast<std::int64_t>(chunk.nbytes));
    }
    wipe_later(chunk.message);
  }
  chunk.message = nullptr;
  chunk.watch.reset();
  if (chunk.state != State::kUnfit) chunk.state = State::kGone;
}

void SealAhead::tell(Speculation id) {
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.has_news) return;
  found->second.has_news = true;
  with_news_.push_back(id);
}

// On the pool: the thread that finds a prediction wrong has a request to serve.
void SealAhead::wipe_later(SealedMessage* message) {
  const auto wipe_now = [this, message] {
    wipe(message, sizeof *message);
    arena_.give_back(message);
  };
  const bool later = pool_.submit([this, wipe_now] {
    wipe_now();
    const std::lock_guard lock(mutex_);
    --jobs_;
    changed_.notify_all();
  });
  if (later) {
    ++jobs_;
  } else {
    wipe_now();
  }
}

}  // namespace pipellm
