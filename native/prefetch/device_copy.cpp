// The request path: which way a copy goes.
#include <algorithm>
#include <cstring>

#include "base/counters.h"
#include "prefetch/device.h"

namespace pipellm::prefetch {

namespace {

// To the device, up to so much is captured while the caller waits if its source may change afterwards, and
// shares a transfer with others that come until the stream needs it.
constexpr std::uint64_t kCaptured = 128 << 10;
// And so much in any case: telling another thread to read it would take longer.
constexpr std::uint64_t kCapturedAlways = 16 << 10;
// Up to so much is checked by the caller: telling another thread would take longer.
constexpr std::uint64_t kCheckedAtOnce = 32 << 10;
// So many copies in one launch.
constexpr std::size_t kMostDue = 64;
// Of a large copy behind something else, so much goes to a place of ours at a time.
constexpr std::uint64_t kHandedOver = std::uint64_t{16} << 20;
// Of a copy to the host, so much is set aside at a time: each part comes home by a call of its own, which
// ends before the next one begins.
constexpr std::uint64_t kAside = std::uint64_t{32} << 20;

std::uint8_t* bytes_at(void* start, std::uint64_t offset) {
  return static_cast<std::uint8_t*>(start) + offset;
}

}  // namespace

int Device::copy(const PipellmCopy& request) {
  const PipellmDriver& table = below_.table();
  if (request.nbytes == 0 || stopped_) {
    // Whoever launched it last may have left something.
    launch_all();
    return settled(table.copy(table.self, &request));
  }
  Lane* const found = lane(request.stream);
  if (found == nullptr) return settled(table.copy(table.self, &request));  // which refuses it
  wait_habit_.goes_on();
  const std::thread::id me = std::this_thread::get_id();
  alone_ = copier_.exchange(me) == me ? alone_ + 1 : 0;
  if (request.nbytes > kSwapBytes) spare_.want();
  grow();
  return request.direction == PIPELLM_H2D ? copy_to_device(*found, request)
                                          : copy_to_host(*found, request);
}

// With the lane's lock.
void Device::mark_due(Lane& lane) {
  if (lane.has_due.exchange(true, std::memory_order_acq_rel)) return;
  due_lanes_.fetch_add(1, std::memory_order_acq_rel);
}

void Device::add_due(Lane& lane, const PipellmDeviceCopy& copy) {
  if (lane.due.copies.size() >= kMostDue || lane.due.conflicts(copy)) launch(lane);
  lane.due.copies.push_back(copy);
  mark_due(lane);
}

bool Device::is_quiet(Lane& lane) {
  if (!lane.due.copies.empty()) return false;
  if (lane.quiet.load(std::memory_order_acquire)) return true;
  const PipellmDriver& table = below_.table();
  if (table.stream_query(table.self, below_.device(), lane.stream) != PIPELLM_OK) return false;
  lane.quiet.store(true, std::memory_order_release);
  return true;
}

bool Device::share(Lane& lane, const Range& source, std::uint8_t* destination,
                   Transfers::Reading reading, const Hold& hold) {
  const auto share = transfers_.share(source, reading, hold);
  if (!share) return false;
  const std::shared_ptr<Gather>& gather = share->gather;
  add_due(lane, {destination, gather->place->data() + share->offset, source.nbytes});
  std::vector<std::shared_ptr<Gather>>& gathers = lane.due.gathers;
  if (gathers.empty() || gathers.back() != gather) gathers.push_back(gather);
  lane.due.device.push_back(range_of(destination, source.nbytes));
  if (reading != Transfers::Reading::kNow) lane.due.host.push_back(source);
  return true;
}

// How many bytes, from the first one on, another thread copies. The calling one makes the rest of the copy.
std::uint64_t Device::hand_over(Lane& lane, const Range& source, std::uint8_t* destination,
                                const Hold& hold) {
  const bool quiet = is_quiet(lane);
  if (quiet) {
    wait_habit_.asks();
    if (wait_habit_.is_certain()) return 0;
  }
  if (source.nbytes <= transfers_.longest_share()) {
    using Reading = Transfers::Reading;
    const auto reading = source.nbytes <= kCaptured ? Reading::kWhenAsked : Reading::kSoon;
    return share(lane, source, destination, reading, hold) ? source.nbytes : 0;
  }
  // Where nothing else is on the stream, the bytes may go where they are wanted. Elsewhere they wait for it
  // in memory of ours, in parts that find room there.
  const std::uint64_t step = quiet ? source.nbytes : std::min(kHandedOver, spare_.segment_bytes());
  std::uint64_t done = 0;
  while (done < source.nbytes) {
    const Range part{source.start + done, std::min(step, source.nbytes - done)};
    if (!demand(lane, part, destination + done, hold, /*direct=*/quiet)) break;
    done += part.nbytes;
  }
  return done;
}

bool Device::demand(Lane& lane, const Range& source, std::uint8_t* destination,
                    const Hold& hold, bool direct) {
  auto gate = gates_.take();
  if (gate == nullptr) return false;
  Demand demand{source.data(), destination, source.nbytes, nullptr, gate, hold};
  if (!direct) {
    demand.place = take_place(source.nbytes);
    if (demand.place == nullptr) return false;
    demand.destination = demand.place->data();
  }
  const std::shared_ptr<Place> place = demand.place;
  if (!transfers_.submit(std::move(demand))) return false;
  if (place != nullptr) {
    add_due(lane, {destination, place->data(), source.nbytes});
    lane.due.places.push_back(place);
  }
  lane.due.gates.push_back(std::move(gate));
  lane.due.device.push_back(range_of(destination, source.nbytes));
  lane.due.host.push_back(source);
  mark_due(lane);
  return true;
}

bool Device::copy_piece(Lane& lane, const Pieces::Part& part, std::uint8_t* destination,
                        bool later) {
  const PipellmDeviceCopy copy{destination, part.piece->at(part.host), part.host.nbytes};
  if (lane.due.copies.size() >= kMostDue || lane.due.conflicts(copy)) launch(lane);
  if (later && lane.due.checked == nullptr) lane.due.checked = gates_.take();
  if (later && lane.due.checked == nullptr && !is_unchanged(*part.piece, part.host)) return false;
  add_due(lane, copy);
  if (part.piece->gate != nullptr) lane.due.gates.push_back(part.piece->gate);
  if (lane.due.checked != nullptr && later) {
    lane.due.checks.push_back({part.piece, part.host, {}});
    lane.due.host.push_back(part.host);
  }
  lane.due.pieces.push_back(part.piece);
  lane.due.device.push_back(range_of(destination, part.host.nbytes));
  return true;
}

std::shared_ptr<Place> Device::take_place(std::uint64_t nbytes) {
  auto place = spare_.take(nbytes);
  while (place == nullptr && nbytes <= spare_.segment_bytes() && pieces_.drop_oldest_kept()) {
    place = spare_.take(nbytes);
  }
  return place;
}

// If there is no room, waits for bytes that will soon be home: those that need nothing but the link, and
// those of this stream, which a copy by the driver below would have to wait for just so.
std::shared_ptr<Place> Device::take_place_aside(Lane& lane, std::uint64_t nbytes) {
  for (;;) {
    auto place = take_place(nbytes);
    if (place != nullptr || nbytes > spare_.segment_bytes()) return place;
    launch_all();
    const auto before = owed(lane);
    if (!before.empty()) {
      returns_.bring_home(before.front());
    } else if (!returns_.await_some_home()) {
      return nullptr;
    }
    reap();
  }
}

int Device::copy_below(Lane& lane, const PipellmCopy& request, const Range& host) {
  launch_all();
  lane.quiet.store(false, std::memory_order_release);
  const PipellmDriver& table = below_.table();
  const bool to_device = request.direction == PIPELLM_H2D;
  void* const ours = to_device ? const_cast<void*>(request.source) : request.destination;
  const std::uint64_t offset = host.start - reinterpret_cast<std::uintptr_t>(ours);
  PipellmCopy part = request;
  part.destination = bytes_at(request.destination, offset);
  part.source = bytes_at(const_cast<void*>(request.source), offset);
  part.nbytes = host.nbytes;
  // Tokens are released by threads of the program's: the driver below might use one of ours.
  part.token = nullptr;
  part.release = nullptr;
  const Transfers::Urgent urgent(transfers_);
  return table.copy(table.self, &part);
}

int Device::finish_copy(Lane& lane, const PipellmCopy& request, Hold hold) {
  if (request.asynchronous == 0) {
    const int status = sync(PIPELLM_SYNC_STREAM, request.stream);
    hold = nullptr;
    holds_.release();
    return status;
  }
  if (hold != nullptr) {
    const std::lock_guard putting(lane.putting);
    lane.due.holds.push_back(std::move(hold));
    mark_due(lane);
  }
  reap();
  return settled(PIPELLM_OK);
}

bool Device::copy_from_aside(Lane& lane, const Range& host, std::uint8_t* destination) {
  const auto touching = returns_.touching(host);
  if (touching.size() != 1 || !touching.front()->host.holds(host)) return false;
  const auto place = returns_.place_of(*touching.front());
  if (place == nullptr) return false;
  const std::uint64_t offset = host.start - touching.front()->host.start;
  const std::lock_guard putting(lane.putting);
  add_due(lane, {destination, place->data() + offset, host.nbytes});
  lane.due.places.push_back(place);
  lane.due.device.push_back(range_of(destination, host.nbytes));
  return true;
}

int Device::copy_to_device(Lane& lane, const PipellmCopy& request) {
  const Range host = range_of(request.source, request.nbytes);
  Hold hold = holds_.take(request);
  const auto destination_of = [&](const Range& part) {
    return bytes_at(request.destination, part.start - host.start);
  };
  const bool asynchronous = request.asynchronous != 0;
  // Whether the source stays as it is until the stream has passed the copy.
  const bool stays = asynchronous && pinned_.contains(request.source, request.nbytes);

  transfers_.end_inside(host);
  if (returns_.touches(host)) {
    if (copy_from_aside(lane, host, destination_of(host))) {
      news_.add({News::Kind::kHit, host, request.stream, host.nbytes});
      return finish_copy(lane, request, std::move(hold));
    }
    bring_home(returns_.touching(host));
  }

  std::vector<Pieces::Part> parts = pieces_.take(host);
  std::uint64_t found = 0;
  bool stale = false;
  for (Pieces::Part& part : parts) {
    if (part.piece == nullptr) continue;
    const bool later = stays && part.host.nbytes > kCheckedAtOnce;
    if (later || is_unchanged(*part.piece, part.host)) {
      found += part.host.nbytes;
    } else {
      pieces_.drop(*part.piece);
      part.piece = nullptr;
      stale = true;
    }
  }
  news_.add({found > 0 ? News::Kind::kHit : stale ? News::Kind::kStale : News::Kind::kMiss, host,
             request.stream, found});

  bool all_below = true;
  for (const Pieces::Part& part : parts) {
    bool done = false;
    std::uint64_t handed_over = 0;
    {
      const std::lock_guard putting(lane.putting);
      if (part.piece != nullptr) {
        const bool later = stays && part.host.nbytes > kCheckedAtOnce;
        done = copy_piece(lane, part, destination_of(part.host), later);
      }
      const std::uint64_t nbytes = part.host.nbytes;
      const bool captured = nbytes <= (stays ? kCapturedAlways : kCaptured);
      if (!done && asynchronous && captured) {
        done = share(lane, part.host, destination_of(part.host), Transfers::Reading::kNow, hold);
      } else if (!done && stays) {
        handed_over = hand_over(lane, part.host, destination_of(part.host), hold);
        done = handed_over == nbytes;
      }
    }
    all_below = all_below && !done && handed_over == 0;
    if (done) continue;
    const Range rest{part.host.start + handed_over, part.host.nbytes - handed_over};
    const int status = copy_below(lane, request, rest);
    if (status != PIPELLM_OK) {
      hold = nullptr;
      return settled(status);
    }
  }
  if (asynchronous || !all_below) return finish_copy(lane, request, std::move(hold));
  // The driver below has waited for the stream.
  bring_home(owed(lane));
  hold = nullptr;
  return settled(PIPELLM_OK);
}

// How many bytes are under way home, from the first one on.
std::uint64_t Device::copy_aside(Lane& lane, const PipellmCopy& request, const Hold& hold) {
  const Range host = range_of(request.destination, request.nbytes);
  const std::uint64_t step = std::min(kAside, spare_.segment_bytes() / 2);
  std::uint64_t done = 0;
  while (done < host.nbytes) {
    const Range part{host.start + done, std::min(step, host.nbytes - done)};
    auto place = take_place_aside(lane, part.nbytes);
    if (place == nullptr) break;
    const std::lock_guard putting(lane.putting);
    auto copy = returns_.begin(part, place, hold);
    if (copy == nullptr) break;
    const auto* const source = bytes_at(const_cast<void*>(request.source), done);
    add_due(lane, {place->data(), source, part.nbytes});
    lane.due.places.push_back(std::move(place));
    lane.due.returns.push_back(copy);
    lane.due.device.push_back(range_of(source, part.nbytes));
    lane.owed.push_back(std::move(copy));
    done += part.nbytes;
  }
  return done;
}

int Device::copy_to_host(Lane& lane, const PipellmCopy& request) {
  const Range host = range_of(request.destination, request.nbytes);
  Hold hold = holds_.take(request);
  const bool stays =
      request.asynchronous != 0 && pinned_.contains(request.destination, request.nbytes);
  transfers_.end_touching(host);
  pieces_.drop_touching(host);
  news_.add({News::Kind::kReadBack, host, request.stream});

  const std::uint64_t aside = stays ? copy_aside(lane, request, hold) : 0;
  if (aside == host.nbytes) return finish_copy(lane, request, std::move(hold));
  const Range rest{host.start + aside, host.nbytes - aside};
  bring_home(returns_.touching(rest));  // the program asked for them before
  const int status = copy_below(lane, request, rest);
  if (status == PIPELLM_OK) {
    if (request.asynchronous == 0) bring_home(owed(lane));
    news_.add({News::Kind::kLanded, rest});
  }
  if (status != PIPELLM_OK || aside == 0) {
    hold = nullptr;
    return settled(status);
  }
  return finish_copy(lane, request, std::move(hold));
}

}  // namespace pipellm::prefetch
