#include "prefetch/order_queue.h"

#include <algorithm>
#include <utility>

namespace pipellm::prefetch {

std::vector<Range> OrderQueue::Transfer::pieces() const {
  std::vector<Range> pieces;
  for (const Piece& piece : all_) {
    if (!piece.ended) pieces.push_back(piece.range);
  }
  return pieces;
}

bool OrderQueue::Transfer::has(const Range& piece) const {
  return std::any_of(all_.begin(), all_.end(), [&](const Piece& each) {
    return each.range == piece && !each.ended;
  });
}

void OrderQueue::add(const std::vector<Range>& pieces) {
  auto transfer = std::make_shared<Transfer>();
  transfer->all_.reserve(pieces.size());  // they stay where they are
  for (const Range& range : pieces) {
    Piece& piece = transfer->all_.emplace_back();
    piece.range = range;
    piece.transfer = transfer.get();
    piece.at = by_start_.emplace(range.start, &piece);
    longest_ = std::max(longest_, range.nbytes);
  }
  transfer->left_ = pieces.size();
  queue_.push_back(std::move(transfer));
}

bool OrderQueue::empty() {
  while (!queue_.empty() && queue_.front()->left_ == 0) queue_.pop_front();
  return queue_.empty();
}

std::shared_ptr<OrderQueue::Transfer> OrderQueue::take() {
  if (empty()) return nullptr;
  auto first = std::move(queue_.front());
  queue_.pop_front();
  return first;
}

void OrderQueue::finish(Transfer& transfer) {
  for (Piece& piece : transfer.all_) {
    if (!piece.ended) end(piece);
  }
}

void OrderQueue::put_back(std::shared_ptr<Transfer> transfer, const std::vector<Range>& left) {
  for (Piece& piece : transfer->all_) {
    const bool stays = std::find(left.begin(), left.end(), piece.range) != left.end();
    if (!stays && !piece.ended) end(piece);
  }
  queue_.push_front(std::move(transfer));
}

void OrderQueue::end(Piece& piece) {
  piece.ended = true;
  --piece.transfer->left_;
  by_start_.erase(piece.at);
}

void OrderQueue::end_inside(const Range& range) {
  auto at = by_start_.lower_bound(range.start);
  while (at != by_start_.end() && at->first < range.end()) {
    Piece& piece = *at++->second;
    if (range.holds(piece.range)) end(piece);
  }
}

void OrderQueue::end_touching(const Range& range) {
  auto at = by_start_.lower_bound(range.start - std::min<std::uintptr_t>(range.start, longest_));
  while (at != by_start_.end() && at->first < range.end()) {
    Piece& piece = *at++->second;
    if (range.touches(piece.range)) end(piece);
  }
}

void OrderQueue::end_exact(const Range& range) {
  auto [at, last] = by_start_.equal_range(range.start);
  while (at != last) {
    Piece& piece = *at++->second;
    if (piece.range == range) end(piece);
  }
}

std::vector<Range> OrderQueue::end_all() {
  std::vector<Range> ended;
  for (const auto& transfer : queue_) {
    const std::vector<Range> pieces = transfer->pieces();
    ended.insert(ended.end(), pieces.begin(), pieces.end());
    finish(*transfer);
  }
  queue_.clear();
  return ended;
}

}  // namespace pipellm::prefetch
