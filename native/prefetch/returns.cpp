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

// Whether who carries bytes home needs the link.
class Returns::LinkUse {
 public:
  explicit LinkUse(Returns& returns) : returns_(returns) {}
  ~LinkUse() { set(false); }
  LinkUse(const LinkUse&) = delete;
  LinkUse& operator=(const LinkUse&) = delete;

  bool needs() const { return needs_; }
  void set(bool needs) {
    if (needs == needs_) return;
    needs_ = needs;
    if (needs) {
      returns_.needing_.fetch_add(1, std::memory_order_acq_rel);
    } else if (returns_.needing_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      returns_.link_is_free_();
    }
  }

 private:
  Returns& returns_;
  bool needs_ = false;
};

Returns::Returns(Below& below, Pieces& pieces, NewsBox& news)
    : below_(below), pieces_(pieces), news_(news) {}

Returns::~Returns() = default;

void Returns::open(std::int64_t stream, std::uint64_t transfer_bytes,
                   std::function<void()> launch, std::function<void()> link_is_free) {
  stream_ = stream;
  launch_ = std::move(launch);
  link_is_free_ = std::move(link_is_free);
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
  // Without a thread, who waits brings it home.
  if (!stop_) (void)thread_.start([this](OwnThread::Self& self) { thread_main(self); });
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
      await_aside(*copy->flight);
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

void Returns::bring_home_early(const std::shared_ptr<Return>& copy) {
  {
    const std::lock_guard lock(mutex_);
    if (under_way_.size() != 1 || !may_be_taken(*copy) || abandoned_) return;
    copy->taken = true;
    ++carrying_;
  }
  Flight& flight = *copy->flight;
  if (flight.event != nullptr) {
    const PipellmDriver& table = below_.table();
    const int status =
        table.stream_wait_event(table.self, below_.device(), stream_, flight.event);
    if (below_.noted(status) != PIPELLM_OK) flight.failed = true;
  }
  carry({copy}, /*keep=*/false);
}

std::shared_ptr<Place> Returns::place_of(const Return& copy) const {
  const std::lock_guard lock(mutex_);
  return copy.place;
}

bool Returns::is_aside(Flight& flight) {
  return flight.event == nullptr || flight.failed || below_.is_over(flight.event);
}

// Waits for the program's stream.
void Returns::await_aside(Flight& flight) {
  if (flight.event == nullptr) return;
  const PipellmDriver& table = below_.table();
  const int status = table.event_synchronize(table.self, flight.event);
  if (below_.noted(status) != PIPELLM_OK) flight.failed = true;
}

// Has taken them: one after the other in the device's memory, and all aside.
void Returns::carry(const Group& group, bool keep) {
  LinkUse link(*this);
  link.set(true);
  // The program hears of the fault before it may look at these bytes.
  if (!group.front()->flight->failed) copy_home(group, keep);
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
    ++landings_;
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

// The oldest that the device has copied aside, with its neighbours; if there is none, nobody has taken the
// oldest that it will, and a thread of the program's may. The driver below is asked without the lock.
Returns::Group Returns::next(std::unique_lock<std::mutex>& lock,
                             std::shared_ptr<Flight>& awaited) {
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
    over.push_back(is_aside(*each.flight));
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
    awaited = candidates.front().flight;
  }
  for (const auto& copy : group) copy->taken = true;
  carrying_ += group.empty() && awaited == nullptr ? 0 : 1;
  return group;
}

void Returns::thread_main(OwnThread::Self& self) {
  LinkUse link(*this);
  std::unique_lock lock(mutex_);
  while (!stop_ && !abandoned_) {
    std::shared_ptr<Flight> awaited;
    const Group group = next(lock, awaited);
    if (group.empty() == link.needs()) {
      lock.unlock();
      link.set(!group.empty());
      lock.lock();
    }
    if (!group.empty()) {
      lock.unlock();
      if (scratch_ == nullptr && group.size() > 1) {
        scratch_ = std::make_unique<std::uint8_t[]>(transfer_bytes_);
      }
      carry(group, /*keep=*/true);
      lock.lock();
      continue;
    }
    if (awaited != nullptr) {
      lock.unlock();
      self.waiting([&] { await_aside(*awaited); });
      awaited = nullptr;
      lock.lock();
      --carrying_;
      changed_.notify_all();
      continue;
    }
    // What came up while the driver was asked has not been looked at.
    const bool more = std::any_of(under_way_.begin(), under_way_.end(),
                                  [this](const auto& copy) { return may_be_taken(*copy); });
    if (!more && !stop_ && !abandoned_) changed_.wait(lock);
  }
}

bool Returns::idle() const {
  const std::lock_guard lock(mutex_);
  return carrying_ == 0 && std::none_of(under_way_.begin(), under_way_.end(),
                                        [](const auto& copy) { return copy->flight != nullptr; });
}

bool Returns::await_some_home() {
  std::unique_lock lock(mutex_);
  const std::uint64_t landings = landings_;
  while (landings_ == landings && !abandoned_) {
    if (!need_link()) return false;
    changed_.wait_for(lock, kLookForLaunch);
  }
  return !abandoned_;
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

bool Returns::stop() {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  OwnThread thread;
  std::unique_lock lock(mutex_);
  stop_ = true;
  thread = std::move(thread_);
  changed_.notify_all();
  while (!under_way_.empty() && !abandoned_ && std::chrono::steady_clock::now() < deadline) {
    std::vector<std::pair<std::shared_ptr<Return>, std::shared_ptr<Flight>>> left;
    for (const auto& copy : under_way_) {
      if (may_be_taken(*copy)) left.emplace_back(copy, copy->flight);
    }
    ++carrying_;  // their tokens are in our hands
    lock.unlock();
    const auto aside = std::find_if(left.begin(), left.end(),
                                    [this](const auto& each) { return is_aside(*each.second); });
    lock.lock();
    if (aside != left.end() && may_be_taken(*aside->first) && !abandoned_) {
      aside->first->taken = true;
      lock.unlock();
      carry({aside->first}, /*keep=*/false);  // which counts it out
      left.clear();
      lock.lock();
    } else {
      --carrying_;
      changed_.notify_all();
      left.clear();
      changed_.wait_for(lock, kLookForLaunch);
    }
  }
  lock.unlock();
  const auto left = deadline - std::chrono::steady_clock::now();
  return thread.end(std::chrono::duration_cast<std::chrono::milliseconds>(left));
}

void Returns::forget_threads() { thread_.forget(); }

}  // namespace pipellm::prefetch
