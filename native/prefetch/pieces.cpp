#include "prefetch/pieces.h"

#include <algorithm>

#include "memory/guarded_copy.h"

namespace pipellm::prefetch {

namespace {

// Hashed at once. The edges of a part cost as much, for bytes that nobody asked for.
constexpr std::uint64_t kHashed = 64 << 10;

}  // namespace

std::uint64_t blocks_of(std::uint64_t nbytes) { return (nbytes + kHashed - 1) / kHashed; }

Range block_of(const Range& piece, std::uint64_t number) {
  const std::uint64_t offset = number * kHashed;
  return {piece.start + offset, std::min(kHashed, piece.nbytes - offset)};
}

std::vector<Fingerprint> hashes_of(const std::uint8_t* bytes, std::uint64_t nbytes) {
  std::vector<Fingerprint> hashes;
  hashes.reserve(blocks_of(nbytes));
  for (std::uint64_t offset = 0; offset < nbytes; offset += kHashed) {
    hashes.push_back(fingerprint(bytes + offset, std::min(kHashed, nbytes - offset)));
  }
  return hashes;
}

std::pair<std::uint64_t, std::uint64_t> blocks_touched(const Piece& piece, const Range& part) {
  return {(part.start - piece.host.start) / kHashed, blocks_of(part.end() - piece.host.start)};
}

bool is_block_unchanged(const Piece& piece, const Range& part, std::uint64_t number) {
  const Range block = block_of(piece.host, number);
  if (part.holds(block)) return fingerprint(block.data(), block.nbytes) == piece.hashes[number];
  std::vector<std::uint8_t> copy(block.nbytes);
  return guarded_copy(copy.data(), block.data(), copy.size()) &&
         fingerprint(copy.data(), copy.size()) == piece.hashes[number];
}

bool is_unchanged(const Piece& piece, const Range& part) {
  const auto [first, end] = blocks_touched(piece, part);
  for (std::uint64_t i = first; i < end; ++i) {
    if (!is_block_unchanged(piece, part, i)) return false;
  }
  return true;
}

Pieces::ByStart::iterator Pieces::first_touching(const Range& range) {
  auto at = pieces_.upper_bound(range.start);
  if (at != pieces_.begin() && std::prev(at)->second->host.touches(range)) --at;
  return at;
}

void Pieces::add(std::shared_ptr<Piece> piece) {
  std::vector<std::shared_ptr<Piece>> ended;  // their places go back without the lock
  const std::lock_guard lock(mutex_);
  auto at = first_touching(piece->host);
  while (at != pieces_.end() && at->second->host.touches(piece->host)) {
    ended.push_back(std::move(at->second));
    at = pieces_.erase(at);
  }
  if (piece->kept) kept_.push_back(piece);
  const std::uintptr_t start = piece->host.start;
  pieces_.emplace(start, std::move(piece));
}

std::vector<Pieces::Part> Pieces::take(const Range& request) {
  std::vector<Part> parts;
  std::uintptr_t reached = request.start;
  const std::lock_guard lock(mutex_);
  auto at = first_touching(request);
  while (at != pieces_.end() && at->second->host.touches(request)) {
    const std::shared_ptr<Piece> piece = at->second;
    const std::uintptr_t start = std::max(piece->host.start, request.start);
    const std::uintptr_t end = std::min(piece->host.end(), request.end());
    if (start > reached) parts.push_back({{reached, start - reached}, nullptr});
    parts.push_back({{start, end - start}, piece});
    reached = end;
    at = request.holds(piece->host) ? pieces_.erase(at) : std::next(at);
  }
  if (reached < request.end()) parts.push_back({{reached, request.end() - reached}, nullptr});
  return parts;
}

std::vector<Range> Pieces::drop_touching(const Range& range) {
  std::vector<std::shared_ptr<Piece>> ended;
  std::vector<Range> ranges;
  {
    const std::lock_guard lock(mutex_);
    auto at = first_touching(range);
    while (at != pieces_.end() && at->second->host.touches(range)) {
      ended.push_back(std::move(at->second));
      at = pieces_.erase(at);
    }
  }
  for (const auto& piece : ended) ranges.push_back(piece->host);
  return ranges;
}

bool Pieces::drop(const Piece& piece) {
  std::shared_ptr<Piece> ended;
  const std::lock_guard lock(mutex_);
  const auto at = pieces_.find(piece.host.start);
  if (at == pieces_.end() || at->second.get() != &piece) return false;
  ended = std::move(at->second);
  pieces_.erase(at);
  return true;
}

bool Pieces::drop_exact(const Range& range) {
  std::shared_ptr<Piece> ended;
  const std::lock_guard lock(mutex_);
  const auto at = pieces_.find(range.start);
  if (at == pieces_.end() || at->second->host != range) return false;
  ended = std::move(at->second);
  pieces_.erase(at);
  return true;
}

bool Pieces::drop_oldest_kept() {
  for (;;) {
    std::shared_ptr<Piece> oldest;
    {
      const std::lock_guard lock(mutex_);
      if (kept_.empty()) return false;
      oldest = kept_.front().lock();
      kept_.erase(kept_.begin());
    }
    if (oldest != nullptr && drop(*oldest)) return true;
  }
}

std::vector<Range> Pieces::drop_all() {
  ByStart ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(pieces_);
    kept_.clear();
  }
  std::vector<Range> ranges;
  for (const auto& [start, piece] : ended) ranges.push_back(piece->host);
  return ranges;
}

bool Pieces::has(const Range& range) const {
  const std::lock_guard lock(mutex_);
  auto at = pieces_.upper_bound(range.start);
  return at != pieces_.begin() && std::prev(at)->second->host.holds(range);
}

std::vector<std::shared_ptr<Flight>> Pieces::use(Piece& piece,
                                                 const std::shared_ptr<Flight>& flight) {
  std::vector<std::shared_ptr<Flight>> before;
  const std::lock_guard lock(mutex_);
  for (const auto& user : piece.users) {
    if (auto living = user.lock()) before.push_back(std::move(living));
  }
  piece.users.assign(before.begin(), before.end());
  piece.users.push_back(flight);
  return before;
}

}  // namespace pipellm::prefetch
