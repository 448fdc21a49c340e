#include "prefetch/transfers.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace pipellm::prefetch {

namespace {

// A large copy goes in parts, for a small one that comes later to pass it.
constexpr std::uint64_t kDemandPart = std::uint64_t{16} << 20;
// Copies may share so much, however short transfers of what was foreseen are to be.
constexpr std::uint64_t kLeastShared = 256 << 10;
// One that crosses, and one that is open meanwhile.
constexpr std::size_t kIdleStaging = 2;
// A small copy has been sent by then.
constexpr std::chrono::milliseconds kLookForSent{2};
// Read at once by one thread.
constexpr std::uint64_t kBlock = 64 << 10;

}  // namespace

Transfers::Transfers(Below& below, Spare& spare, Gates& gates, Pieces& pieces,
                     const Returns& returns, const AddressRanges& never_ahead, Readers& readers,
                     NewsBox& news)
    : below_(below),
      spare_(spare),
      gates_(gates),
      pieces_(pieces),
      returns_(returns),
      never_ahead_(never_ahead),
      readers_(readers),
      news_(news) {}

Transfers::~Transfers() = default;

void Transfers::open(std::int64_t stream, std::uint64_t transfer_bytes, std::int64_t quiet_ns,
                     std::function<void()> reap) {
  stream_ = stream;
  transfer_bytes_ = transfer_bytes;
  shared_bytes_ = std::min(std::max(transfer_bytes, kLeastShared), spare_.segment_bytes());
  quiet_ = std::chrono::nanoseconds(quiet_ns);
  reap_ = std::move(reap);
}

// With the lock.
bool Transfers::start() {
  return !stop_ && !abandoned_ && thread_.start([this](OwnThread::Self&) { thread_main(); });
}

// Less than others have room for is better than nothing.
std::shared_ptr<Gather> Transfers::make_gather(std::uint64_t nbytes) {
  std::shared_ptr<Place> place;
  for (std::uint64_t most = shared_bytes_; place == nullptr && most >= nbytes; most /= 2) {
    place = spare_.take(most);
  }
  while (place == nullptr && nbytes <= shared_bytes_) {
    place = spare_.take(nbytes);
    if (place == nullptr && !pieces_.drop_oldest_kept()) break;
  }
  auto gate = gates_.take();
  if (place == nullptr || gate == nullptr) return nullptr;
  std::unique_ptr<Staging> staging;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_staging_.empty()) {
      staging = std::move(idle_staging_.back());
      idle_staging_.pop_back();
    }
  }
  try {
    if (staging == nullptr) staging = std::make_unique<Staging>(shared_bytes_);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return std::make_shared<Gather>(std::move(place), std::move(gate), std::move(staging));
}

std::optional<Transfers::Share> Transfers::share(const Range& source, Reading reading,
                                                 const Hold& hold) {
  const std::uint64_t nbytes = Spare::aligned(source.nbytes);
  std::shared_ptr<Gather> fresh;
  std::unique_lock lock(mutex_);
  while (start()) {
    if (open_ != nullptr && open_->used + nbytes <= open_->capacity) break;
    if (fresh != nullptr) {
      if (open_ != nullptr) full_.push_back(std::move(open_));
      changed_.notify_all();
      open_ = std::move(fresh);
      break;
    }
    lock.unlock();
    fresh = make_gather(nbytes);
    if (fresh == nullptr) return std::nullopt;
    lock.lock();
  }
  if (stop_ || abandoned_ || open_ == nullptr) return std::nullopt;
  Share share{open_, open_->used};
  Gather& gather = *share.gather;
  gather.used += nbytes;
  if (reading != Reading::kNow) {
    gather.parts.push_back({source.data(), share.offset, source.nbytes, hold});
    if (reading == Reading::kSoon && !gather.asked.exchange(true)) changed_.notify_all();
    return share;
  }
  gather.captured = true;
  ++gather.filling;
  lock.unlock();
  std::memcpy(gather.bytes->data() + share.offset, source.data(), source.nbytes);
  lock.lock();
  if (--gather.filling == 0 && (gather.asked || share.gather != open_)) changed_.notify_all();
  return share;
}

void Transfers::ask(Gather& gather) {
  if (gather.asked.exchange(true)) return;
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

bool Transfers::submit(Demand demand) {
  const std::lock_guard lock(mutex_);
  if (!start()) return false;
  demands_.push_back(std::move(demand));
  changed_.notify_all();
  return true;
}

Transfers::Urgent::Urgent(Transfers& transfers) : transfers_(transfers) {
  const std::lock_guard lock(transfers_.mutex_);
  ++transfers_.urgent_;
}

Transfers::Urgent::~Urgent() {
  const std::lock_guard lock(transfers_.mutex_);
  transfers_.quiet_until_ = std::chrono::steady_clock::now() + transfers_.quiet_;
  if (--transfers_.urgent_ == 0 && !transfers_.orders_.empty()) transfers_.changed_.notify_all();
}

// With the lock. The one that goes next, if all that was captured is in it.
std::shared_ptr<Gather> Transfers::next_gather() {
  if (!full_.empty()) {
    if (full_.front()->filling > 0) return nullptr;
    auto next = std::move(full_.front());
    full_.pop_front();
    return next;
  }
  if (open_ == nullptr || !open_->asked || open_->filling > 0) return nullptr;
  return std::exchange(open_, nullptr);
}

// With the lock, which it lets go meanwhile. The bytes are the driver's when a copy returns: it captures
// pageable memory.
void Transfers::carry(std::unique_lock<std::mutex>& lock, Gather& gather) {
  lock.unlock();
  if (gather.used < gather.place->nbytes()) gather.place->split(gather.used);
  const bool alone = gather.parts.size() == 1 && !gather.captured;
  if (!alone) {
    struct Block {
      const std::uint8_t* source;
      std::uint64_t offset, nbytes;
    };
    std::vector<Block> blocks;
    for (const Gather::Part& part : gather.parts) {
      for (std::uint64_t done = 0; done < part.nbytes; done += kBlock) {
        blocks.push_back({part.source + done, part.offset + done,
                          std::min(kBlock, part.nbytes - done)});
      }
    }
    readers_.each(blocks.size(), [&](std::size_t i) {
      std::memcpy(gather.bytes->data() + blocks[i].offset, blocks[i].source, blocks[i].nbytes);
    });
  }
  const Gather::Part* const only = alone ? &gather.parts.front() : nullptr;
  below_.copy(PIPELLM_H2D, gather.place->data(), alone ? only->source : gather.bytes->data(),
              alone ? only->nbytes : gather.used, /*asynchronous=*/true, stream_);
  gather.parts.clear();  // before the gate: who has waited for a copy finds that nobody has its token
  gates_.pass(*gather.gate, stream_);
  lock.lock();
  if (idle_staging_.size() < kIdleStaging) idle_staging_.push_back(std::move(gather.bytes));
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
  demand.hold = nullptr;  // before the gate: who has waited for a copy finds that nobody has its token
  gates_.pass(*demand.gate, stream_);
  return true;
}

// With the lock, which it lets go meanwhile. False: there is nothing to do.
bool Transfers::work(std::unique_lock<std::mutex>& lock) {
  if (demands_.empty() || !demand_next_) {
    if (const std::shared_ptr<Gather> gather = next_gather()) {
      demand_next_ = true;
      carry(lock, *gather);
      return true;
    }
  }
  demand_next_ = false;
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
  if (!may_begin_foreseen()) return false;
  carry_order(lock);
  if (!passed_.empty()) note_arrivals(lock, /*wait=*/false);
  return true;
}

// With the lock, which it lets go.
void Transfers::wait(std::unique_lock<std::mutex>& lock) {
  if (!passed_.empty()) {
    working_ = true;
    note_arrivals(lock, /*wait=*/true);
    working_ = false;
  } else if (!orders_.empty() && no_room_) {
    await_room(lock);
  } else if (!orders_.empty() && urgent_ == 0 && !returns_.need_link()) {
    changed_.wait_until(lock, quiet_until_);
  } else {
    changed_.wait(lock);
  }
}

void Transfers::thread_main() {
  std::unique_lock lock(mutex_);
  while (!abandoned_) {
    working_ = true;
    const bool worked = work(lock);
    working_ = false;
    if (worked) continue;
    changed_.notify_all();
    const bool filling = !full_.empty() || (open_ != nullptr && open_->asked);
    if (stop_ && !filling) return;
    wait(lock);
  }
  working_ = false;
  changed_.notify_all();
}

bool Transfers::await_asked() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kLookForSent, [this] { return !working_ && !asked(); });
}

// With the lock.
bool Transfers::asked() const {
  return !full_.empty() || !demands_.empty() || (open_ != nullptr && open_->asked);
}

bool Transfers::idle() {
  const std::lock_guard lock(mutex_);
  return !working_ && !asked() && passed_.empty() && orders_.empty();
}

void Transfers::abandon() {
  std::shared_ptr<Gather> open;  // they go without the lock
  std::deque<std::shared_ptr<Gather>> full;
  std::deque<Demand> demands;
  std::unique_lock lock(mutex_);
  abandoned_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !working_; });
  open.swap(open_);
  full.swap(full_);
  demands.swap(demands_);
  orders_.end_all();
  passed_.clear();
  lock.unlock();
}

void Transfers::stop() {
  OwnThread thread;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    orders_.end_all();
    if (open_ != nullptr) open_->asked = true;
    thread = std::move(thread_);
    changed_.notify_all();
  }
  (void)thread.end(kPatience);  // it waits for no stream of the program's
}

void Transfers::forget_threads() { thread_.forget(); }

}  // namespace pipellm::prefetch
