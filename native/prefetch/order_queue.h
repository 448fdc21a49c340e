// Transfers that a planner ordered and that have not begun, in their order.
//
// Pieces are found by their addresses: a request ends those that it makes needless, and looks at few
// others.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "prefetch/orders.h"

namespace pipellm::prefetch {

// Not locked: its owner guards it, and what it gives.
class OrderQueue {
 public:
  // One order. Its pieces end also while somebody has taken it.
  class Transfer {
   public:
    std::vector<Range> pieces() const;  // that have not ended
    bool has(const Range& piece) const;  // and whether this is one of them

   private:
    friend class OrderQueue;
    struct Piece;
    using ByStart = std::multimap<std::uintptr_t, Piece*>;
    struct Piece {
      Range range;
      Transfer* transfer;
      ByStart::iterator at;
      bool ended = false;
    };
    std::vector<Piece> all_;
    std::size_t left_ = 0;
  };

  void add(const std::vector<Range>& pieces);
  bool empty();  // but for what is taken
  // The first one; nullptr: there is none. It is to be finished or put back.
  std::shared_ptr<Transfer> take();
  void finish(Transfer& transfer);
  void put_back(std::shared_ptr<Transfer> transfer, const std::vector<Range>& left);

  void end_inside(const Range& range);
  void end_touching(const Range& range);
  void end_exact(const Range& range);
  // Ends all that is not taken, and returns what it was.
  std::vector<Range> end_all();

 private:
  using Piece = Transfer::Piece;
  void end(Piece& piece);

  std::deque<std::shared_ptr<Transfer>> queue_;
  Transfer::ByStart by_start_;  // those that have not ended
  std::uint64_t longest_ = 0;   // of all pieces so far
};

}  // namespace pipellm::prefetch
