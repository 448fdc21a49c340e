// What of the host's memory is in the prefetch buffer, or on its way there.
//
// A piece is what was asked to be brought, found by any range of its bytes. It holds the hashes of what
// was transferred; whether the host still has these bytes is asked when they are wanted.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "memory/fingerprint.h"
#include "prefetch/flight.h"
#include "prefetch/orders.h"

namespace pipellm::prefetch {

struct Piece {
  Range host;
  std::shared_ptr<Place> place;
  std::shared_ptr<Gate> gate;  // which opens when the bytes are there; nullptr: they are
  std::vector<Fingerprint> hashes;
  bool kept = false;  // not ordered: it is here because a read-back left it
  // Who has copied from it, or will: guarded by Pieces.
  std::vector<std::weak_ptr<Flight>> users;

  std::uint8_t* at(const Range& part) const { return place->data() + (part.start - host.start); }
};

// A piece is hashed block by block.
std::uint64_t blocks_of(std::uint64_t nbytes);
Range block_of(const Range& piece, std::uint64_t number);
std::vector<Fingerprint> hashes_of(const std::uint8_t* bytes, std::uint64_t nbytes);

// Whether the host holds, in `part`, what was transferred. The part can be read; what lies around it in
// the piece may be gone.
bool is_unchanged(const Piece& piece, const Range& part);
bool is_block_unchanged(const Piece& piece, const Range& part, std::uint64_t number);
// The blocks that a part has bytes of: the first, and one behind the last.
std::pair<std::uint64_t, std::uint64_t> blocks_touched(const Piece& piece, const Range& part);

// Internally locked.
class Pieces {
 public:
  struct Part {
    Range host;
    std::shared_ptr<Piece> piece;  // nullptr: it is not there
  };

  // Ends those that it touches.
  void add(std::shared_ptr<Piece> piece);
  // The parts of a request, in order, and those of a piece that is longer. Ends the pieces that lie
  // wholly inside.
  std::vector<Part> take(const Range& request);
  // Ends these, and returns what they were.
  std::vector<Range> drop_touching(const Range& range);
  bool drop(const Piece& piece);
  bool drop_exact(const Range& range);
  bool drop_oldest_kept();
  std::vector<Range> drop_all();
  bool has(const Range& range) const;

  // From now on `flight` copies from the piece; returns who did before.
  std::vector<std::shared_ptr<Flight>> use(Piece& piece, const std::shared_ptr<Flight>& flight);

 private:
  using ByStart = std::map<std::uintptr_t, std::shared_ptr<Piece>>;  // none touches another
  ByStart::iterator first_touching(const Range& range);

  mutable std::mutex mutex_;  // guards all below
  ByStart pieces_;
  std::vector<std::weak_ptr<Piece>> kept_;  // oldest first
};

}  // namespace pipellm::prefetch
