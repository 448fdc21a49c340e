#include "prefetch/returns.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace pipellm::prefetch {

namespace {

// What is longer gains nothing from company.
constexpr std::uint64_t kAlone = std::uint64_t{1} << 20;
// So many are looked at to find the next one.
constexpr std::size_t kLooked = 64;
// Another thread is about to put it on its stream.
constexpr std::chrono::milliseconds kLookForLaunch{1};

}  // namespace

Returns::Returns(Below& below, Pieces& pieces, NewsBox& news)
    : below_(below), pieces_(pieces), news_(news) {}

Returns::~Returns() = default;

void Returns::open(std::int64_t stream, std::uint64_t transfer_bytes,
                   std::function<void()> launch) {
  stream_ = stream;
  launch_ = std::move(launch);
  transfer_bytes_ = transfer_bytes;
}

std::shared_ptr<Return> Returns::begin(const Range& host, std::shared_ptr<Place> place, Hold hold) {
  auto copy = std::make_shared<Return>();
  copy->host = host;
  copy->place = std::move(place);
  copy->hold = std::move(hold);
  const std::lock_guard lock(mutex_);
  if (stop_ || abandoned_) return nullptr;
  for (const auto& other : under_way_) {
    if (other->host.touches(host)) copy->after.push_back(other);
  }
  under_way_.push_back(copy);
  return copy;
}

void Returns::launched(const std::shared_ptr<Return>& copy, const std::shared_ptr<Flight>& flight) {
  const std::lock_guard lock(mutex_);
  copy->flight = flight;
  if (thread_ == nullptr && !stop_) {
    try {
      thread_ = std::make_unique<std::thread>([this] { thread_main(); });
    } catch (const std::exception&) {
      // Who waits brings it home.
    }
  }
  changed_.notify_all();
}

std::vector<std::shared_ptr<Return>> Returns::touching(const Range& range) const {
  std::vector<std::shared_ptr<Return>> found;
  const std::lock_guard lock(mutex_);
  for (const auto& copy : under_way_) {
    if (copy->host.touches(range)) found.push_back(copy);
  }
  return found;
}

bool Returns::touches(const Range& range) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(under_way_.begin(), under_way_.end(),
                     [&](const auto& copy) { return copy->host.touches(range); });
}

// With the lock.
bool Returns::may_be_taken(const Return& copy) const {
  return !copy.taken && !copy.home && copy.flight != nullptr &&
         std::all_of(copy.after.begin(), copy.after.end(),
                     [](const auto& before) { return before->home.load(); });
}

void Returns::bring_home(const std::shared_ptr<Return>& copy) {
  std::vector<std::shared_ptr<Return>> before;
  {
    const std::lock_guard lock(mutex_);
    before = copy->after;
  }
  for (const auto& each : before) bring_home(each);
  std::unique_lock lock(mutex_);
  while (!copy->home) {
    if (may_be_taken(*copy) && !abandoned_) {
      copy->taken = true;
      ++carrying_;
      lock.unlock();
      carry({copy}, /*keep=*/false);
      lock.lock();
    } else if (copy->flight == nullptr && !abandoned_) {
      lock.unlock();
      launch_();
      lock.lock();
      if (copy->flight == nullptr) changed_.wait_for(lock, kLookForLaunch);
    } else {
      changed_.wait(lock);
    }
  }
}

std::shared_ptr<Place> Returns::place_of(const Return& copy) const {
  const std::lock_guard lock(mutex_);
  return copy.place;
}

// Has taken them: one after the other in the device's memory.
void Returns::carry(const Group& group, bool keep) {
  const PipellmDriver& table = below_.table();
  const Return& first = *group.front();
  if (first.flight->event != nullptr) {
    below_.noted(table.event_synchronize(table.self, first.flight->event));
  }
  // After a fault the program hears of it before it may look at any of these bytes.
  if (below_.fault().status() == PIPELLM_OK) copy_home(group, keep);
  finish(group);
}

void Returns::copy_home(const Group& group, bool keep) {
  const Return& first = *group.front();
  const Return& last = *group.back();
  auto* const host = reinterpret_cast<std::uint8_t*>(first.host.start);
  const bool alone = group.size() == 1;
  const std::uint64_t nbytes =
      static_cast<std::uint64_t>(last.place->data() - first.place->data()) + last.host.nbytes;
  std::uint8_t* const target = alone ? host : scratch_.get();
  const int status = below_.copy(PIPELLM_D2H, target, first.place->data(), nbytes,
                                 /*asynchronous=*/false, stream_);
  if (status != PIPELLM_OK) return;
  for (const auto& copy : group) {
    const std::uint8_t* const bytes = target + (copy->place->data() - first.place->data());
    if (!alone) std::memcpy(reinterpret_cast<void*>(copy->host.start), bytes, copy->host.nbytes);
    if (!keep) continue;
    auto piece = std::make_shared<Piece>();
    piece->host = copy->host;
    piece->place = copy->place;
    piece->hashes = hashes_of(bytes, copy->host.nbytes);
    piece->kept = true;
    pieces_.add(std::move(piece));
  }
}

void Returns::finish(const Group& group) {
  std::vector<Range> landed;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& copy : group) {
      landed.push_back(copy->host);
      let_go(*copy);
      std::erase(under_way_, copy);
    }
    --carrying_;
    changed_.notify_all();
  }
  for (const Range& range : landed) news_.add({News::Kind::kLanded, range});
}

// With the lock.
void Returns::let_go(Return& copy) {
  copy.home = true;
  copy.hold = nullptr;
  copy.flight = nullptr;
  copy.place = nullptr;
  copy.after.clear();
}

// The oldest that the device has copied aside, with its neighbours; if there is none, the oldest that it
// will. The driver below is asked without the lock.
Returns::Group Returns::next(std::unique_lock<std::mutex>& lock) {
  struct Candidate {
    std::shared_ptr<Return> copy;
    std::shared_ptr<Flight> flight;
  };
  std::vector<Candidate> candidates;
  for (const auto& copy : under_way_) {
    if (may_be_taken(*copy)) candidates.push_back({copy, copy->flight});
    if (candidates.size() == kLooked) break;
  }
  Group group;
  if (candidates.empty()) return group;
  ++carrying_;  // their tokens are in our hands
  lock.unlock();
  std::vector<bool> over;
  for (const Candidate& each : candidates) {
    over.push_back(each.flight->event == nullptr || below_.is_over(each.flight->event));
    if (!over.front() && over.size() > 1 && over.back()) break;
  }
  lock.lock();
  --carrying_;
  changed_.notify_all();
  if (abandoned_) return group;
  for (std::size_t i = 0; i < over.size(); ++i) {
    const auto& copy = candidates[i].copy;
    if (!over[i] || !may_be_taken(*copy)) {
      if (group.empty()) continue;
      break;
    }
    if (!group.empty()) {
      const Place& last = *group.back()->place;
      const auto length = static_cast<std::uint64_t>(
          copy->place->data() + copy->place->nbytes() - group.front()->place->data());
      if (copy->place->data() != last.data() + last.nbytes() || length > transfer_bytes_) break;
    }
    group.push_back(copy);
    if (copy->host.nbytes >= kAlone) break;
  }
  if (group.empty() && may_be_taken(*candidates.front().copy)) {
    group.push_back(candidates.front().copy);
  }
  for (const auto& copy : group) copy->taken = true;
  carrying_ += group.empty() ? 0 : 1;
  return group;
}

void Returns::thread_main() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (stop_ || abandoned_) return;
    const Group group = next(lock);
    if (group.empty()) {
      if (stop_ || abandoned_) return;  // said while the driver was asked
      // What came up while the driver was asked has not been looked at: begin anew.
      if (std::any_of(under_way_.begin(), under_way_.end(),
                      [this](const auto& copy) { return may_be_taken(*copy); })) {
        continue;
      }
      changed_.wait(lock);
      continue;
    }
    lock.unlock();
    if (scratch_ == nullptr && group.size() > 1) {
      scratch_ = std::make_unique<std::uint8_t[]>(transfer_bytes_);
    }
    carry(group, /*keep=*/true);
    lock.lock();
  }
}

bool Returns::idle() const {
  const std::lock_guard lock(mutex_);
  return carrying_ == 0 && std::none_of(under_way_.begin(), under_way_.end(),
                                        [](const auto& copy) { return copy->flight != nullptr; });
}

void Returns::abandon() {
  std::unique_lock lock(mutex_);
  abandoned_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return carrying_ == 0; });
  for (const auto& copy : under_way_) let_go(*copy);
  under_way_.clear();
  changed_.notify_all();
}

void Returns::stop() {
  std::unique_ptr<std::thread> thread;
  std::vector<std::shared_ptr<Return>> left;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    thread = std::move(thread_);
    left.assign(under_way_.begin(), under_way_.end());
    changed_.notify_all();
  }
  for (const auto& copy : left) bring_home(copy);
  if (thread != nullptr) thread->join();
}

void Returns::forget_threads() { (void)thread_.release(); }

}  // namespace pipellm::prefetch
