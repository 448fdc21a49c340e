#include "prefetch/spare.h"

#include <algorithm>

namespace pipellm::prefetch {

namespace {

constexpr std::uint64_t kLongestSegment = std::uint64_t{64} << 20;

}  // namespace

Place::~Place() { spare_.give_back(data_, nbytes_); }

std::shared_ptr<Place> Place::split(std::uint64_t nbytes) {
  const std::uint64_t rest = nbytes_ - nbytes;
  nbytes_ = nbytes;
  return std::shared_ptr<Place>(new Place(spare_, data_ + nbytes, rest));
}

Spare::Spare(Below& below, std::uint64_t budget)
    : below_(below),
      budget_(budget),
      segment_bytes_(std::min(kLongestSegment, budget / 4 / kAlignment * kAlignment)) {}

std::shared_ptr<Place> Spare::take(std::uint64_t nbytes, bool foreseen) {
  nbytes = aligned(std::max<std::uint64_t>(nbytes, 1));
  const std::lock_guard lock(mutex_);
  if (closed_ || nbytes > segment_bytes_) return nullptr;
  // What was asked for needs room too, however much is foreseen.
  const std::uint64_t kept = foreseen ? segments_.size() * segment_bytes_ / 4 : 0;
  if (free_ >= nbytes + kept) {
    for (Segment& segment : segments_) {
      for (auto at = segment.free.begin(); at != segment.free.end(); ++at) {
        const auto [offset, length] = *at;
        if (length < nbytes) continue;
        segment.free.erase(at);
        if (length > nbytes) segment.free.emplace(offset + nbytes, length - nbytes);
        free_ -= nbytes;
        return std::shared_ptr<Place>(new Place(*this, segment.data + offset, nbytes));
      }
    }
  }
  wanted_ = (segments_.size() + 1) * segment_bytes_ <= budget_;
  return nullptr;
}

void Spare::want() {
  const std::lock_guard lock(mutex_);
  wanted_ = wanted_ || segments_.empty();
}

void Spare::give_back(std::uint8_t* data, std::uint64_t nbytes) {
  const std::lock_guard lock(mutex_);
  const auto segment = std::find_if(segments_.begin(), segments_.end(), [&](const Segment& each) {
    return each.data <= data && data < each.data + segment_bytes_;
  });
  auto offset = static_cast<std::uint64_t>(data - segment->data);
  free_ += nbytes;
  ++changes_;
  auto after = segment->free.lower_bound(offset);
  if (after != segment->free.end() && after->first == offset + nbytes) {
    nbytes += after->second;
    after = segment->free.erase(after);
  }
  if (after != segment->free.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == offset) {
      before->second += nbytes;
      return;
    }
  }
  segment->free.emplace(offset, nbytes);
}

// Leaves a thirty-second of the device, or twice what is taken: engines fill nine tenths of it.
bool Spare::device_has_room(std::uint64_t nbytes) {
  PipellmMemoryInfo info{};
  const PipellmDriver& table = below_.table();
  if (table.memory_info(table.self, below_.device(), &info) != PIPELLM_OK) return false;
  if (info.total == 0) return true;  // no limit
  const std::uint64_t left = info.total - std::min(info.total, info.allocated);
  return left >= nbytes + std::max(info.total / 32, 2 * nbytes);
}

std::int64_t Spare::grow() {
  {
    const std::lock_guard lock(mutex_);
    if (!wanted_ || growing_ || closed_) return -1;
    wanted_ = false;
    if ((segments_.size() + 1) * segment_bytes_ > budget_ || segment_bytes_ == 0) return -1;
    growing_ = true;
  }
  void* memory = nullptr;
  const PipellmDriver& table = below_.table();
  const bool grown = device_has_room(segment_bytes_) &&
                     table.malloc(table.self, below_.device(), segment_bytes_, &memory) == PIPELLM_OK;
  const std::lock_guard lock(mutex_);
  growing_ = false;
  if (!grown) return -1;
  segments_.push_back({static_cast<std::uint8_t*>(memory), {{0, segment_bytes_}}});
  free_ += segment_bytes_;
  ++changes_;
  return static_cast<std::int64_t>(segments_.size() * segment_bytes_);
}

std::uint64_t Spare::held() const {
  const std::lock_guard lock(mutex_);
  return segments_.size() * segment_bytes_;
}

std::uint64_t Spare::changes() const {
  const std::lock_guard lock(mutex_);
  return changes_;
}

std::uint64_t Spare::release(std::int64_t stream) {
  std::vector<void*> idle;
  std::uint64_t left = 0;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(segments_, [&](const Segment& segment) {
      const auto whole = segment.free.find(0);
      if (whole == segment.free.end() || whole->second != segment_bytes_) return false;
      idle.push_back(segment.data);
      free_ -= segment_bytes_;
      return true;
    });
    left = segments_.size() * segment_bytes_;
    wanted_ = false;
  }
  if (idle.empty()) return left;
  const PipellmDriver& table = below_.table();
  for (void* const segment : idle) {
    table.fill(table.self, below_.device(), stream, segment, 0, segment_bytes_);
  }
  table.sync(table.self, below_.device(), PIPELLM_SYNC_STREAM, stream);
  for (void* const segment : idle) table.free(table.self, segment);
  return left;
}

void Spare::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

}  // namespace pipellm::prefetch
