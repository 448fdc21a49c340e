#include "prefetch/transfers.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "memory/guarded_copy.h"

namespace pipellm::prefetch {

namespace {

// A large copy goes in parts, for a small one that comes later to pass it.
constexpr std::uint64_t kDemandPart = std::uint64_t{16} << 20;
constexpr std::size_t kIdleGathers = 8;
// Who is short of room hears of none that comes free on the device.
constexpr std::chrono::milliseconds kLookForRoom{2};

std::uint64_t aligned(std::uint64_t nbytes) {
  return (nbytes + Spare::kAlignment - 1) / Spare::kAlignment * Spare::kAlignment;
}

}  // namespace

Transfers::Transfers(Below& below, Spare& spare, Gates& gates, Pieces& pieces,
                     const Returns& returns, const AddressRanges& never_ahead, NewsBox& news)
    : below_(below),
      spare_(spare),
      gates_(gates),
      pieces_(pieces),
      returns_(returns),
      never_ahead_(never_ahead),
      news_(news) {}

Transfers::~Transfers() = default;

void Transfers::open(std::int64_t stream, std::uint64_t transfer_bytes,
                     std::function<void()> reap) {
  stream_ = stream;
  reap_ = std::move(reap);
  transfer_bytes_ = transfer_bytes;
}

std::shared_ptr<Gather> Transfers::gather() {
  auto gather = std::make_shared<Gather>();
  {
    const std::lock_guard lock(mutex_);
    if (stop_ || abandoned_) return nullptr;
    if (!idle_bytes_.empty()) {
      gather->bytes = std::move(idle_bytes_.back());
      idle_bytes_.pop_back();
    }
  }
  gather->gate = gates_.take();
  gather->place = spare_.take(Gather::kBytes);
  while (gather->place == nullptr && pieces_.drop_oldest_kept()) {
    gather->place = spare_.take(Gather::kBytes);
  }
  if (gather->gate == nullptr || gather->place == nullptr) return nullptr;
  if (gather->bytes == nullptr) gather->bytes = std::make_unique_for_overwrite<std::uint8_t[]>(Gather::kBytes);
  return gather;
}

// With the lock.
bool Transfers::start() {
  if (stop_ || abandoned_) return false;
  if (thread_ != nullptr) return true;
  try {
    thread_ = std::make_unique<std::thread>([this] { thread_main(); });
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

void Transfers::submit(std::shared_ptr<Gather> gather) {
  {
    const std::lock_guard lock(mutex_);
    if (start()) {
      gathers_.push_back(std::move(gather));
      changed_.notify_all();
      return;
    }
  }
  // Nobody else will: not after a lost context either, which says so itself.
  carry(*gather);
}

bool Transfers::submit(Demand demand) {
  const std::lock_guard lock(mutex_);
  if (!start()) return false;
  demands_.push_back(std::move(demand));
  changed_.notify_all();
  return true;
}

void Transfers::order(std::vector<Order> orders) {
  const std::lock_guard lock(mutex_);
  if (!start()) return;
  for (Order& order : orders) {
    if (order.kind == Order::Kind::kTransfer) {
      orders_.push_back(std::move(order));
      continue;
    }
    for (const Range& range : order.pieces) {
      for (Order& waiting : orders_) std::erase(waiting.pieces, range);
      std::erase(captured_, range);
      pieces_.drop_exact(range);
    }
  }
  no_room_ = false;
  changed_.notify_all();
}

void Transfers::end_inside(const Range& range) {
  const std::lock_guard lock(mutex_);
  const auto ends = [&](const Range& piece) { return range.holds(piece); };
  for (Order& order : orders_) std::erase_if(order.pieces, ends);
  std::erase_if(captured_, ends);
}

void Transfers::end_touching(const Range& range) {
  const std::lock_guard lock(mutex_);
  const auto ends = [&](const Range& piece) { return range.touches(piece); };
  for (Order& order : orders_) std::erase_if(order.pieces, ends);
  std::erase_if(captured_, ends);
}

void Transfers::await_capture() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !capturing_; });
}

void Transfers::await_passed() {
  std::unique_lock lock(mutex_);
  for (const Order& order : std::exchange(orders_, {})) {
    for (const Range& piece : order.pieces) news_.add({News::Kind::kDropped, piece});
  }
  changed_.wait(lock, [this] {
    return (!working_ && passed_.empty() && gathers_.empty() && demands_.empty()) ||
           abandoned_ || thread_ == nullptr;
  });
}

Transfers::Urgent::Urgent(Transfers& transfers) : transfers_(transfers) {
  const std::lock_guard lock(transfers_.mutex_);
  ++transfers_.urgent_;
}

Transfers::Urgent::~Urgent() {
  const std::lock_guard lock(transfers_.mutex_);
  if (--transfers_.urgent_ == 0) transfers_.changed_.notify_all();
}

// The bytes are the driver's when the call returns: it captures pageable memory.
void Transfers::carry(Gather& gather) {
  below_.copy(PIPELLM_H2D, gather.place->data(), gather.bytes.get(), gather.used,
              /*asynchronous=*/true, stream_);
  gates_.pass(*gather.gate, stream_);
}

// Whether that was the last part.
bool Transfers::carry_part(Demand& demand) {
  const std::uint64_t nbytes = std::min(kDemandPart, demand.nbytes);
  // Pageable memory for the driver below, whatever it is for the program.
  below_.copy(PIPELLM_H2D, demand.destination, demand.source, nbytes, /*asynchronous=*/true, stream_);
  demand.destination += nbytes;
  demand.source += nbytes;
  demand.nbytes -= nbytes;
  if (demand.nbytes > 0) return false;
  gates_.pass(*demand.gate, stream_);
  return true;
}

bool Transfers::capture(const Range& host, std::uint8_t* scratch) {
  return !never_ahead_.overlaps(host.data(), host.nbytes) &&
         guarded_copy(scratch, host.data(), host.nbytes);
}

// With the lock, which it lets go.
void Transfers::carry_order(std::unique_lock<std::mutex>& lock) {
  const Order order = std::move(orders_.front());
  orders_.pop_front();
  capturing_ = true;
  captured_ = order.pieces;
  lock.unlock();
  if (scratch_ == nullptr) scratch_ = std::make_unique<std::uint8_t[]>(transfer_bytes_);

  std::uint64_t total = 0;
  std::vector<Range> wanted;
  std::vector<News> news;
  for (const Range& range : order.pieces) {
    if (pieces_.has(range)) {
      news.push_back({News::Kind::kTransferred, range});
    } else if (range.nbytes == 0 || total + aligned(range.nbytes) > transfer_bytes_) {
      news.push_back({News::Kind::kRefused, range});
    } else if (returns_.touches(range)) {
      news.push_back({News::Kind::kDropped, range});  // not home yet
    } else {
      wanted.push_back(range);
      total += aligned(range.nbytes);
    }
  }
  std::shared_ptr<Place> place;
  std::shared_ptr<Gate> gate;
  const std::uint64_t room_before = spare_.changes();
  if (!wanted.empty()) {
    gate = gates_.take();
    place = spare_.take(total, /*foreseen=*/true);
    while (place == nullptr && pieces_.drop_oldest_kept()) place = spare_.take(total, true);
  }
  const bool room = wanted.empty() || (place != nullptr && gate != nullptr);
  std::uint64_t used = 0;
  std::uint8_t* const start = place == nullptr ? nullptr : place->data();
  std::vector<std::shared_ptr<Piece>> pieces;
  for (const Range& range : room ? wanted : std::vector<Range>{}) {
    if (!capture(range, scratch_.get() + used)) {
      news.push_back({News::Kind::kRefused, range});
      continue;
    }
    auto piece = std::make_shared<Piece>();
    piece->host = range;
    piece->place = place;
    if (place->nbytes() > aligned(range.nbytes)) {
      auto rest = place->split(aligned(range.nbytes));
      place = std::move(rest);
    } else {
      place = nullptr;
    }
    piece->gate = gate;
    piece->hashes = hashes_of(scratch_.get() + used, range.nbytes);
    used += aligned(range.nbytes);
    pieces.push_back(std::move(piece));
  }
  place = nullptr;  // what was refused needs none

  lock.lock();
  capturing_ = false;
  changed_.notify_all();
  const auto ended = [this](const Range& range) {
    return std::find(captured_.begin(), captured_.end(), range) == captured_.end();
  };
  if (!room) {
    std::erase_if(wanted, ended);
    orders_.push_front({Order::Kind::kTransfer, std::move(wanted)});
    no_room_ = true;
    room_seen_ = room_before;
  }
  // From here on they are found, by who then waits for the gate. What ended meanwhile crosses in vain.
  for (const auto& piece : pieces) {
    if (!ended(piece->host)) pieces_.add(piece);
  }
  captured_.clear();
  lock.unlock();
  if (used > 0) {
    below_.copy(PIPELLM_H2D, start, scratch_.get(), used, /*asynchronous=*/true, stream_);
    gates_.pass(*gate, stream_);
    for (const auto& piece : pieces) news.push_back({News::Kind::kTransferred, piece->host});
  }
  for (const News& each : news) news_.add(each);
  Passed passed{std::move(gate), {}};
  for (const auto& piece : pieces) passed.places.push_back(piece->place);
  pieces.clear();
  lock.lock();
  if (used > 0) passed_.push_back(std::move(passed));
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

// With the lock, which it lets go meanwhile. False: there is nothing to do.
bool Transfers::work(std::unique_lock<std::mutex>& lock) {
  if (!gathers_.empty()) {
    const std::shared_ptr<Gather> gather = std::move(gathers_.front());
    gathers_.pop_front();
    lock.unlock();
    carry(*gather);
    lock.lock();
    if (idle_bytes_.size() < kIdleGathers) idle_bytes_.push_back(std::move(gather->bytes));
    return true;
  }
  if (!demands_.empty()) {
    Demand demand = std::move(demands_.front());
    demands_.pop_front();
    lock.unlock();
    const bool done = carry_part(demand);
    if (done) demand = {};
    lock.lock();
    // Not put behind others: copies into the same memory stay in their order.
    if (!done && !abandoned_) demands_.push_front(std::move(demand));
    return true;
  }
  if (!orders_.empty() && urgent_ == 0 && !no_room_ && !stop_) {
    carry_order(lock);
    if (!passed_.empty()) note_arrivals(lock, /*wait=*/false);
    return true;
  }
  return false;
}

void Transfers::thread_main() {
  std::unique_lock lock(mutex_);
  while (!abandoned_) {
    working_ = true;
    const bool worked = work(lock);
    working_ = false;
    if (worked) continue;
    changed_.notify_all();
    if (stop_) return;
    if (!passed_.empty()) {
      working_ = true;
      note_arrivals(lock, /*wait=*/true);
      working_ = false;
    } else if (!orders_.empty() && no_room_) {
      await_room(lock);
    } else {
      changed_.wait(lock);
    }
  }
  working_ = false;
  changed_.notify_all();
}

bool Transfers::idle() {
  const std::lock_guard lock(mutex_);
  return !working_ && passed_.empty() && gathers_.empty() && demands_.empty() && orders_.empty();
}

void Transfers::abandon() {
  std::deque<std::shared_ptr<Gather>> gathers;  // they go without the lock
  std::deque<Demand> demands;
  std::unique_lock lock(mutex_);
  abandoned_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !working_; });
  gathers.swap(gathers_);
  demands.swap(demands_);
  orders_.clear();
  passed_.clear();
  lock.unlock();
}

void Transfers::stop() {
  std::unique_ptr<std::thread> thread;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    orders_.clear();
    thread = std::move(thread_);
    changed_.notify_all();
  }
  if (thread != nullptr) thread->join();
}

void Transfers::forget_threads() { (void)thread_.release(); }

}  // namespace pipellm::prefetch
