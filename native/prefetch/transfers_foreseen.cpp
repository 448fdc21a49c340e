// What the copy thread does of what was foreseen.
#include <algorithm>
#include <atomic>
#include <utility>

#include "memory/guarded_copy.h"
#include "prefetch/transfers.h"

namespace pipellm::prefetch {

namespace {

// Who is short of room hears of none that comes free on the device.
constexpr std::chrono::milliseconds kLookForRoom{2};

}  // namespace

// One transfer, while it is carried out.
struct Transfers::Foreseen {
  std::vector<Range> ordered, wanted;  // all of them, and those that have to cross
  std::vector<std::shared_ptr<Piece>> pieces;
  std::vector<News> news;
  std::shared_ptr<Place> place;
  std::shared_ptr<Gate> gate;
  std::uint8_t* start = nullptr;  // of the place
  std::uint64_t total = 0, used = 0;  // bytes of it
  std::uint64_t room_before = 0;
  bool room = true;
};

void Transfers::order(std::vector<Order> orders) {
  const std::lock_guard lock(mutex_);
  if (!start()) return;
  if (staging_ == nullptr) staging_ = std::make_unique<Staging>(transfer_bytes_);
  for (const Order& order : orders) {
    if (order.kind == Order::Kind::kTransfer) {
      orders_.add(order.pieces);
      continue;
    }
    for (const Range& range : order.pieces) {
      orders_.end_exact(range);
      pieces_.drop_exact(range);
    }
  }
  no_room_ = false;
  changed_.notify_all();
}

void Transfers::end_inside(const Range& range) {
  const std::lock_guard lock(mutex_);
  orders_.end_inside(range);
}

void Transfers::end_touching(const Range& range) {
  const std::lock_guard lock(mutex_);
  orders_.end_touching(range);
}

void Transfers::await_capture() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !capturing_; });
}

void Transfers::await_passed() {
  std::unique_lock lock(mutex_);
  for (const Range& piece : orders_.end_all()) news_.add({News::Kind::kDropped, piece});
  changed_.wait(lock, [this] {
    return (!working_ && passed_.empty() && !asked()) || abandoned_ || !thread_.runs();
  });
}

void Transfers::look_again() {
  const std::lock_guard lock(mutex_);
  if (!orders_.empty()) changed_.notify_all();
}

// With the lock.
bool Transfers::may_begin_foreseen() {
  return !orders_.empty() && urgent_ == 0 && !no_room_ && !stop_ && !returns_.need_link() &&
         (quiet_until_ == Time{} || std::chrono::steady_clock::now() >= quiet_until_);
}

// What has to cross, and a place for it.
void Transfers::choose(Foreseen& transfer) {
  for (const Range& range : transfer.ordered) {
    const std::uint64_t nbytes = Spare::aligned(range.nbytes);
    if (pieces_.has(range)) {
      transfer.news.push_back({News::Kind::kTransferred, range});
    } else if (range.nbytes == 0 || transfer.total + nbytes > transfer_bytes_ ||
               never_ahead_.overlaps(range.data(), range.nbytes)) {
      transfer.news.push_back({News::Kind::kRefused, range});
    } else if (returns_.touches(range)) {
      transfer.news.push_back({News::Kind::kDropped, range});  // not home yet
    } else {
      transfer.wanted.push_back(range);
      transfer.total += nbytes;
    }
  }
  transfer.room_before = spare_.changes();
  if (transfer.wanted.empty()) return;
  transfer.gate = gates_.take();
  transfer.place = spare_.take(transfer.total, /*foreseen=*/true);
  while (transfer.place == nullptr && pieces_.drop_oldest_kept()) {
    transfer.place = spare_.take(transfer.total, true);
  }
  transfer.room = transfer.place != nullptr && transfer.gate != nullptr;
  if (transfer.room) transfer.start = transfer.place->data();
}

// Reads what is wanted, with the hashes of what was read: a block is hashed while it is in the cache.
void Transfers::capture(Foreseen& transfer, std::uint8_t* staging) {
  struct Read {
    Read(const Range& what, std::uint64_t where)
        : range(what), offset(where), hashes(blocks_of(what.nbytes)) {}
    Range range;
    std::uint64_t offset;
    std::vector<Fingerprint> hashes;
    std::atomic<bool> failed{false};
  };
  struct Block {
    Read* read;
    std::uint64_t number;
  };
  std::deque<Read> reads;
  std::vector<Block> blocks;
  std::uint64_t offset = 0;
  for (const Range& range : transfer.wanted) {
    Read& read = reads.emplace_back(range, offset);
    for (std::uint64_t i = 0; i < read.hashes.size(); ++i) blocks.push_back({&read, i});
    offset += Spare::aligned(range.nbytes);
  }
  readers_.each(blocks.size(), [&](std::size_t i) {
    Read& read = *blocks[i].read;
    const Range block = block_of(read.range, blocks[i].number);
    std::uint8_t* const bytes = staging + read.offset + (block.start - read.range.start);
    if (read.failed) return;
    if (guarded_copy(bytes, block.data(), block.nbytes)) {
      read.hashes[blocks[i].number] = fingerprint(bytes, block.nbytes);
    } else {
      read.failed = true;
    }
  });
  std::shared_ptr<Place> left = std::move(transfer.place);
  for (Read& read : reads) {
    std::shared_ptr<Place> place = std::move(left);
    const std::uint64_t nbytes = Spare::aligned(read.range.nbytes);
    if (place->nbytes() > nbytes) left = place->split(nbytes);
    if (read.failed) {
      transfer.news.push_back({News::Kind::kRefused, read.range});
      continue;
    }
    auto piece = std::make_shared<Piece>();
    piece->host = read.range;
    piece->place = std::move(place);
    piece->gate = transfer.gate;
    piece->hashes = std::move(read.hashes);
    transfer.used = read.offset + nbytes;
    transfer.pieces.push_back(std::move(piece));
  }
}

// Without the lock. What did not cross is not there; who has found it meanwhile and waits is told.
void Transfers::cross(Foreseen& transfer, const std::uint8_t* staging) {
  const int status = below_.try_copy(PIPELLM_H2D, transfer.start, staging, transfer.used,
                                     /*asynchronous=*/true, stream_);
  const auto kind = status == PIPELLM_OK ? News::Kind::kTransferred : News::Kind::kDropped;
  for (auto& piece : transfer.pieces) {
    transfer.news.push_back({kind, piece->host});
    if (status == PIPELLM_OK) continue;
    pieces_.drop(*piece);
    const bool found = piece.use_count() > 1 || piece->place.use_count() > 1;
    if (found) below_.noted(status);
  }
  gates_.pass(*transfer.gate, stream_);
}

// With the lock, which it lets go meanwhile.
void Transfers::carry_order(std::unique_lock<std::mutex>& lock) {
  auto order = orders_.take();
  Foreseen transfer;
  transfer.ordered = order->pieces();
  capturing_ = true;
  lock.unlock();
  choose(transfer);
  if (transfer.room && !transfer.wanted.empty()) capture(transfer, staging_->data());
  transfer.place = nullptr;

  lock.lock();
  capturing_ = false;
  changed_.notify_all();
  // From here on they are found, by who then waits for the gate. What ended meanwhile crosses in vain.
  for (const auto& piece : transfer.pieces) {
    if (order->has(piece->host)) pieces_.add(piece);
  }
  if (transfer.room) {
    orders_.finish(*order);
  } else {
    orders_.put_back(std::move(order), transfer.wanted);
    no_room_ = true;
    room_seen_ = transfer.room_before;
  }
  lock.unlock();
  if (transfer.used > 0) cross(transfer, staging_->data());
  for (const News& each : transfer.news) news_.add(each);
  Passed passed{std::move(transfer.gate), {}};
  for (const auto& piece : transfer.pieces) passed.places.push_back(piece->place);
  transfer.pieces.clear();
  lock.lock();
  if (transfer.used > 0) passed_.push_back(std::move(passed));
}

// With the lock, which it lets go. Nobody need wait any more for what has arrived.
void Transfers::note_arrivals(std::unique_lock<std::mutex>& lock, bool wait) {
  auto passed = std::exchange(passed_, {});
  lock.unlock();
  const PipellmDriver& table = below_.table();
  const int status =
      wait ? table.sync(table.self, below_.device(), PIPELLM_SYNC_STREAM, stream_)
           : table.stream_query(table.self, below_.device(), stream_);
  below_.noted(status);
  if (status == PIPELLM_OK) {
    for (const Passed& each : passed) each.gate->arrived.store(true, std::memory_order_release);
  }
  if (status != PIPELLM_NOT_READY) passed.clear();
  lock.lock();
  passed_.insert(passed_.begin(), std::make_move_iterator(passed.begin()),
                 std::make_move_iterator(passed.end()));
}

// With the lock, which it lets go.
void Transfers::await_room(std::unique_lock<std::mutex>& lock) {
  changed_.wait_for(lock, kLookForRoom);
  if (abandoned_) return;
  working_ = true;  // tokens may pass through our hands
  lock.unlock();
  reap_();
  const std::uint64_t changes = spare_.changes();
  lock.lock();
  working_ = false;
  if (changes != room_seen_) no_room_ = false;
}

}  // namespace pipellm::prefetch
