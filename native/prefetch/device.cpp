#include "prefetch/device.h"

#include <algorithm>

namespace pipellm::prefetch {

namespace {

// After so many copies of one thread, nobody else is expected to want the link while it waits.
constexpr std::uint64_t kAlone = 32;

}  // namespace

bool Due::conflicts(const PipellmDeviceCopy& copy) const {
  const Range to = range_of(copy.destination, copy.nbytes);
  const Range from = range_of(copy.source, copy.nbytes);
  return std::any_of(copies.begin(), copies.end(), [&](const PipellmDeviceCopy& other) {
    const Range written = range_of(other.destination, other.nbytes);
    return written.touches(to) || written.touches(from) ||
           to.touches(range_of(other.source, other.nbytes));
  });
}

Device::Device(const PipellmDriver& below, std::int32_t device, const Options& options,
               const PinnedMemory& pinned, const AddressRanges& never_ahead)
    : below_(below, device),
      pinned_(pinned),
      never_ahead_(never_ahead),
      options_(options),
      spare_(below_, options.budget),
      gates_(below_),
      readers_(options.threads),
      returns_(below_, pieces_, news_),
      transfers_(below_, spare_, gates_, pieces_, returns_, never_ahead_, readers_, news_),
      checks_(below_, gates_, pieces_, readers_, news_) {}

Device::~Device() { stop(); }

int Device::open() {
  const PipellmDriver& table = below_.table();
  std::int64_t to_device = 0, to_host = 0, checking = 0;
  for (std::int64_t* const stream : {&to_device, &to_host, &checking, &wiping_stream_}) {
    const int status = table.stream_create(table.self, below_.device(), stream);
    if (status != PIPELLM_OK) return status;
  }
  transfers_.open(to_device, options_.transfer_bytes, options_.quiet_ns, [this] { reap(); });
  returns_.open(to_host, options_.transfer_bytes, [this] { launch_all(); },
                [this] { transfers_.look_again(); });
  checks_.open(checking);
  return PIPELLM_OK;
}

Lane* Device::lane(std::int64_t stream) {
  {
    const std::shared_lock lock(lanes_mutex_);
    if (const auto found = lanes_.find(stream); found != lanes_.end()) return found->second.get();
  }
  // What the program gets wrong is the driver's to refuse, and no fault of ours.
  const PipellmDriver& table = below_.table();
  const int status = table.stream_query(table.self, below_.device(), stream);
  if (status != PIPELLM_OK && status != PIPELLM_NOT_READY) return nullptr;
  const std::unique_lock lock(lanes_mutex_);
  std::unique_ptr<Lane>& made = lanes_[stream];
  if (made == nullptr) made = std::make_unique<Lane>(stream);
  return made.get();
}

template <typename Body>
void Device::each_lane(Body body) {
  std::vector<Lane*> lanes;
  {
    const std::shared_lock lock(lanes_mutex_);
    for (const auto& [stream, each] : lanes_) lanes.push_back(each.get());
  }
  for (Lane* const each : lanes) body(*each);
}

// Everywhere, not on the one stream only: a device's streams may wait for each other in ways that we do
// not see, and what is due should not lie while the program does something else.
void Device::launch_all() {
  if (due_lanes_.load(std::memory_order_acquire) == 0) return;
  each_lane([this](Lane& each) {
    if (!each.has_due.load(std::memory_order_acquire)) return;
    const std::lock_guard putting(each.putting);
    launch(each);
  });
}

// The device is done with these.
std::vector<std::shared_ptr<Flight>> Device::over(Lane& lane) {
  std::vector<std::shared_ptr<Flight>> done;
  while (!lane.flights.empty()) {
    Flight& oldest = *lane.flights.front();
    if (oldest.event != nullptr && !below_.is_over(oldest.event)) break;
    done.push_back(std::move(lane.flights.front()));
    lane.flights.pop_front();
  }
  return done;
}

void Device::reap() {
  each_lane([this](Lane& each) {
    std::vector<std::shared_ptr<Flight>> done;  // they go without the lock
    const std::lock_guard putting(each.putting);
    done = over(each);
    // Whoever else looks at a flight meanwhile wants its event; what the program gave is let go of now.
    for (const auto& flight : done) flight->holds.clear();
  });
}

void Device::launch(Lane& lane) {
  if (lane.due.empty()) return;
  Due due = std::exchange(lane.due, {});
  const PipellmDriver& table = below_.table();
  const auto flight = std::make_shared<Flight>(below_);
  if (due.checked != nullptr) due.gates.push_back(due.checked);
  for (const auto& gather : due.gathers) {
    due.places.push_back(gather->place);
    due.gates.push_back(gather->gate);
    transfers_.ask(*gather);
  }
  const Gate* last = nullptr;
  for (const auto& gate : due.gates) {
    if (gate.get() != last) gates_.wait(*gate, lane.stream);
    last = gate.get();
  }
  if (!due.copies.empty()) {
    lane.quiet.store(false, std::memory_order_release);
    const int status = table.copy_on_device(table.self, below_.device(), lane.stream,
                                            due.copies.data(), due.copies.size());
    if (below_.noted(status) != PIPELLM_OK) flight->failed = true;
  }
  if (flight->event != nullptr) {
    const int status = table.event_record(table.self, flight->event, lane.stream);
    if (below_.noted(status) != PIPELLM_OK) flight->failed = true;
  }
  flight->places = std::move(due.places);
  for (const auto& piece : due.pieces) flight->places.push_back(piece->place);
  flight->gates = std::move(due.gates);
  flight->holds = std::move(due.holds);
  flight->device = std::move(due.device);
  flight->host = std::move(due.host);
  lane.flights.push_back(flight);
  for (Check& check : due.checks) check.before = pieces_.use(*check.piece, flight);
  for (const auto& piece : due.pieces) pieces_.use(*piece, flight);
  if (due.checked != nullptr) checks_.submit(std::move(due.checks), std::move(due.checked));
  for (const auto& copy : due.returns) returns_.launched(copy, flight);
  // Not before it is all on the stream: who finds nothing due does not wait for the lane's lock, and puts
  // its own work there next.
  lane.has_due.store(false, std::memory_order_release);
  due_lanes_.fetch_sub(1, std::memory_order_acq_rel);
}

void Device::before_work(std::int64_t stream) {
  wait_habit_.goes_on();
  launch_all();
  if (Lane* const found = lane(stream)) found->quiet.store(false, std::memory_order_release);
}

std::vector<std::shared_ptr<Return>> Device::owed(Lane& lane) {
  const std::lock_guard putting(lane.putting);
  std::erase_if(lane.owed, [](const auto& copy) { return copy->home.load(); });
  return lane.owed;
}

void Device::bring_home(const std::vector<std::shared_ptr<Return>>& owed) {
  for (const auto& copy : owed) returns_.bring_home(copy);
}

// A decode loop that waits for each step's result: nobody else wants the link until it is there. What the
// stream itself waits for must have been sent, as the driver below may let nothing pass.
void Device::before_waiting(const std::vector<std::shared_ptr<Return>>& owed) {
  if (owed.size() != 1 || alone_ < kAlone) return;
  if (transfers_.await_asked() && checks_.idle()) returns_.bring_home_early(owed.front());
}

void Device::order(std::vector<Order> orders) {
  alone_ = 0;
  transfers_.order(std::move(orders));
}

void Device::settle(int status) {
  if (status == PIPELLM_CONTEXT_LOST || below_.fault().status() == PIPELLM_CONTEXT_LOST) {
    // Nobody reads or writes the program's memory any more, and nobody waits.
    transfers_.abandon();
    checks_.abandon();
    returns_.abandon();
    each_lane([this](Lane& each) {
      Due due;
      std::deque<std::shared_ptr<Flight>> flights;
      const std::lock_guard putting(each.putting);
      due = std::exchange(each.due, {});
      if (each.has_due.exchange(false)) due_lanes_.fetch_sub(1);
      flights.swap(each.flights);
      each.owed.clear();
    });
  }
  holds_.release();
}

int Device::settled(int status) {
  settle(status);
  if (status != PIPELLM_OK && status != PIPELLM_NOT_READY) return status;
  const int fault = below_.fault().tell();
  return fault == PIPELLM_OK ? status : fault;
}

int Device::sync(std::int32_t scope, std::int64_t stream) {
  wait_habit_.waits();
  news_.add({News::Kind::kSynchronize, {}, stream});
  const int status = wait(scope, stream);
  grow();
  return status;
}

int Device::wait(std::int32_t scope, std::int64_t stream) {
  const PipellmDriver& table = below_.table();
  launch_all();
  std::vector<std::shared_ptr<Return>> all;
  if (scope == PIPELLM_SYNC_DEVICE) {
    each_lane([&](Lane& each) {
      const auto some = owed(each);
      all.insert(all.end(), some.begin(), some.end());
    });
  } else if (Lane* const found = lane(stream)) {
    all = owed(*found);
  }
  before_waiting(all);
  const int status = table.sync(table.self, below_.device(), scope, stream);
  if (status == PIPELLM_OK) bring_home(all);
  reap();
  return settled(status);
}

int Device::stream_query(std::int64_t stream) {
  const PipellmDriver& table = below_.table();
  launch_all();
  int status = table.stream_query(table.self, below_.device(), stream);
  if (status == PIPELLM_OK) {
    Lane* const found = lane(stream);
    if (found != nullptr && !owed(*found).empty()) status = PIPELLM_NOT_READY;
  }
  return settled(status);
}

int Device::event_record(LayerEvent& event, std::int64_t stream) {
  const PipellmDriver& table = below_.table();
  wait_habit_.goes_on();
  launch_all();
  Lane* const found = lane(stream);
  if (found == nullptr) return settled(table.event_record(table.self, event.below, stream));
  int status = PIPELLM_OK;
  {
    const std::lock_guard putting(found->putting);
    launch(*found);
    status = table.event_record(table.self, event.below, stream);
    std::erase_if(found->owed, [](const auto& copy) { return copy->home.load(); });
    const std::lock_guard lock(event.mutex);
    event.owed = found->owed;
  }
  return settled(status);
}

int Device::event_query(LayerEvent& event) {
  const PipellmDriver& table = below_.table();
  launch_all();
  int status = table.event_query(table.self, event.below);
  if (status == PIPELLM_OK) {
    const std::lock_guard lock(event.mutex);
    std::erase_if(event.owed, [](const auto& copy) { return copy->home.load(); });
    if (!event.owed.empty()) status = PIPELLM_NOT_READY;
  }
  return settled(status);
}

int Device::event_synchronize(LayerEvent& event) {
  const PipellmDriver& table = below_.table();
  launch_all();
  std::vector<std::shared_ptr<Return>> all;
  {
    const std::lock_guard lock(event.mutex);
    all = event.owed;
  }
  news_.add({News::Kind::kSynchronize, {}, 0});
  before_waiting(all);
  const int status = table.event_synchronize(table.self, event.below);
  if (status == PIPELLM_OK) bring_home(all);
  reap();
  return settled(status);
}

int Device::stream_wait_event(std::int64_t stream, LayerEvent& event) {
  const PipellmDriver& table = below_.table();
  before_work(stream);
  Lane* const found = lane(stream);
  // Without the lane's lock: a driver may wait for an event of another device here.
  const int status = table.stream_wait_event(table.self, below_.device(), stream, event.below);
  if (found != nullptr && status == PIPELLM_OK) {
    const std::lock_guard putting(found->putting);
    const std::lock_guard lock(event.mutex);
    for (const auto& copy : event.owed) {
      if (!copy->home) found->owed.push_back(copy);
    }
  }
  return settled(status);
}

void Device::grow() {
  const std::int64_t room = spare_.grow();
  if (room >= 0) {
    gates_.open(wiping_stream_);
    news_.add({News::Kind::kRoom, {0, static_cast<std::uint64_t>(room)}});
  }
}

void Device::stop_reading(const Range& range) {
  transfers_.end_touching(range);
  for (const Range& ended : pieces_.drop_touching(range)) {
    news_.add({News::Kind::kDropped, ended});
  }
  transfers_.await_capture();
}

void Device::declared(const Range& range) {
  stop_reading(range);
  news_.add({News::Kind::kFreed, range});  // what was refused is tried again
}

void Device::freeze() {
  frozen_.emplace(transfers_);
  transfers_.await_capture();
}

void Device::thaw() { frozen_.reset(); }

bool Device::idle() { return transfers_.idle() && checks_.idle() && returns_.idle(); }

bool Device::is_used(const Range& range, bool on_device) {
  bool used = false;
  const auto touches = [&](const std::vector<Range>& ranges) {
    used = used || std::any_of(ranges.begin(), ranges.end(),
                               [&](const Range& each) { return each.touches(range); });
  };
  each_lane([&](Lane& each) {
    const std::lock_guard putting(each.putting);
    touches(on_device ? each.due.device : each.due.host);
    for (const auto& flight : each.flights) touches(on_device ? flight->device : flight->host);
  });
  return used;
}

// Tokens keep what a copy uses; who gives none has to wait here, as cudaFree does.
void Device::before_free(const void* pointer, std::uint64_t nbytes) {
  if (nbytes == 0) return;
  reap();
  if (!is_used(range_of(pointer, nbytes), /*on_device=*/true)) return;
  const PipellmDriver& table = below_.table();
  launch_all();
  table.sync(table.self, below_.device(), PIPELLM_SYNC_DEVICE, 0);
}

void Device::before_host_free(const Range& range) {
  stop_reading(range);
  reap();
  if (returns_.touches(range) || is_used(range, /*on_device=*/false)) {
    wait(PIPELLM_SYNC_DEVICE, 0);
  }
  news_.add({News::Kind::kFreed, range});
}

void Device::release_memory() {
  for (const Range& ended : pieces_.drop_all()) news_.add({News::Kind::kDropped, ended});
  if (all_held() == 0) return;
  news_.add({News::Kind::kRoom, {0, 0}});
  // What is in use is so by copies that the device has not come to yet, or that are not home.
  wait(PIPELLM_SYNC_DEVICE, 0);
  transfers_.await_passed();
  pieces_.drop_all();
  spare_.release(wiping_stream_);
  gates_.close();
}

void Device::stop() {
  if (stopped_.exchange(true)) return;
  launch_all();
  spare_.close();
  transfers_.stop();
  const bool checked = checks_.stop(), home = returns_.stop();
  left_behind_ = !checked || !home;
  readers_.stop();
  news_.close();
  pieces_.drop_all();
}

void Device::forget_threads() {
  transfers_.forget_threads();
  checks_.forget_threads();
  returns_.forget_threads();
}

}  // namespace pipellm::prefetch
