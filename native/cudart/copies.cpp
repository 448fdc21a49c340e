#include "cudart/copies.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "cudart/confidential.h"

namespace pipellm::cudart {

namespace {

// Below, a copy is over sooner than a thread has been woken up for it. It is also what tells swaps
// from other transfers (facts: swaps are usually above 128 KB).
constexpr std::uint64_t kStagedFrom = 128 << 10;

// In a forked child, and while the process ends: CUDA does everything by itself.
std::atomic<bool> over{false};

Stream stream_of(const PipellmCopy& copy) { return reinterpret_cast<Stream>(copy.stream); }

bool capturing(Stream stream) {
  int status = kCaptureNone;
  // An error, too, means that CUDA is to have the copy as it is.
  return cuda::stream_is_capturing(stream, &status) != kSuccess || status != kCaptureNone;
}

}  // namespace

Copies* Copies::active() {
  static Copies* const instance = confidential_computing_is_on() ? new Copies : nullptr;
  return over.load(std::memory_order_relaxed) ? nullptr : instance;
}

Copies::Copies() {
  // After CUDA's own handlers were registered, so it runs before them.
  std::atexit([] {
    Copies* const copies = active();
    if (copies == nullptr) return;
    over.store(true);
    copies->stop();
    copies->tell();
  });
}

Lane Copies::lane(Stream stream) {
  if (stream == legacy_stream() || stream == legacy_stream_by_name()) return {nullptr, true};
  unsigned flags = 0;
  // A handle that is no stream is treated as the stricter kind; CUDA will say what is wrong with it.
  cuda::stream_flags(stream, &flags);
  return {stream, (flags & kNonBlocking) == 0};
}

Error Copies::copy(const PipellmCopy& copy) {
  const Stream stream = stream_of(copy);
  const bool to_device = copy.direction == PIPELLM_H2D;
  const void* host = to_device ? copy.source : copy.destination;
  if (copy.nbytes >= kStagedFrom && pinned_.contains(host, copy.nbytes) && !capturing(stream)) {
    Device* const on = device(copy.device);
    if (on != nullptr && (to_device ? stage_to_device(copy, *on) : stage_to_host(copy, *on))) {
      (to_device ? to_device_ : to_host_).add(copy.nbytes);
      return kSuccess;
    }
  }
  passed_.add(copy.nbytes);
  return pass(copy);
}

bool Copies::stage_to_device(const PipellmCopy& copy, Device& device) {
  if (writes_.anything() && !overlapping(writes_, copy, copy.source).empty()) return false;
  const Blocks blocks = device.supplies.to_device.take(copy.nbytes);
  if (blocks.empty()) return false;
  if (owed_.anything()) owed_.wait(overlapping(owed_, copy, copy.source));
  const Stream idle = device.supplies.to_device.stream(), stream = stream_of(copy);
  const auto* from = static_cast<const char*>(copy.source);
  auto* to = static_cast<char*>(copy.destination);
  std::uint64_t left = copy.nbytes;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    Block& block = *blocks[i];
    const std::size_t part = std::min<std::uint64_t>(left, kBlockBytes);
    const bool done =
        cuda::memcpy_async(block.memory, from, part, kHostToDevice, idle) == kSuccess &&
        cuda::event_record(block.filled, idle) == kSuccess &&
        cuda::stream_wait_event(stream, block.filled) == kSuccess &&
        cuda::memcpy_async(to, block.memory, part, kDeviceToDevice, stream) == kSuccess &&
        cuda::event_record(block.used, stream) == kSuccess;
    if (!done) {
      // Who knows what is still using this block: it is not used again. The copy is done anew, as a
      // whole, by whoever called, and the program hears what CUDA says of that alone.
      cuda::get_last_error();
      device.supplies.to_device.give_back(Blocks(blocks.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                        blocks.end()));
      return false;
    }
    device.worker.submit({Errand::Kind::kGiveBack, block.used, {&block}, nullptr});
    from += part;
    to += part;
    left -= part;
  }
  return true;
}

bool Copies::stage_to_host(const PipellmCopy& copy, Device& device) {
  Blocks blocks = device.supplies.to_host.take(copy.nbytes);
  if (blocks.empty()) return false;
  const Stream stream = stream_of(copy);
  const auto* from = static_cast<const char*>(copy.source);
  std::uint64_t left = copy.nbytes;
  bool done = true;
  for (const Block* block : blocks) {
    const std::size_t part = std::min<std::uint64_t>(left, kBlockBytes);
    done = done && cuda::memcpy_async(block->memory, from, part, kDeviceToDevice, stream) ==
                       kSuccess;
    from += part;
    left -= part;
  }
  const Event ready = blocks.back()->used;
  if (!done || cuda::event_record(ready, stream) != kSuccess) {
    cuda::get_last_error();  // as above; the blocks are not used again
    return false;
  }
  auto arrival = std::make_shared<Arrival>();
  arrival->destination = reinterpret_cast<std::uintptr_t>(copy.destination);
  arrival->nbytes = copy.nbytes;
  owed_.add(lane(stream), arrival);
  device.worker.submit({Errand::Kind::kCopy, ready, std::move(blocks), std::move(arrival)});
  return true;
}

// As CUDA does it.
Error Copies::pass(const PipellmCopy& copy) {
  const bool to_device = copy.direction == PIPELLM_H2D;
  if (owed_.anything()) {
    owed_.wait(overlapping(owed_, copy, to_device ? copy.source : copy.destination));
  }
  const Error error =
      cuda::memcpy_async(copy.destination, copy.source, copy.nbytes,
                         to_device ? kHostToDevice : kDeviceToHost, stream_of(copy));
  // Under confidential computing a copy to the host has been made by now, says CUDA's behaviour and
  // no document. If it has not, it must be known to be under way.
  if (error == kSuccess && !to_device) {
    may_write_host(stream_of(copy), copy.destination, copy.nbytes);
  }
  return error;
}

Arrivals Copies::overlapping(Owed& owed, const PipellmCopy& copy, const void* host) {
  Arrivals earlier = owed.of(lane(stream_of(copy)));
  Owed::keep_overlapping(earlier, host, copy.nbytes);
  return earlier;
}

void Copies::may_write_host(Stream stream, const void* memory, std::size_t nbytes) {
  if (capturing(stream)) return;  // not now, but when the graph is launched
  int number = 0;
  Device* const on = cuda::get_device(&number) == kSuccess ? device(number) : nullptr;
  const Event event = on == nullptr ? nullptr : on->supplies.events.take();
  if (event == nullptr || cuda::event_record(event, stream) != kSuccess) {
    cuda::get_last_error();
    cuda::stream_synchronize(stream);
    return;
  }
  auto write = std::make_shared<Arrival>();
  write->destination = reinterpret_cast<std::uintptr_t>(memory);
  write->nbytes = nbytes;
  writes_.add(lane(stream), write);
  on->worker.submit({Errand::Kind::kWritten, event, {}, std::move(write)});
}

Error Copies::sync(PipellmScope scope, Stream stream) {
  if (!owed_.anything()) return owed_.take_error();
  return settle(scope == PIPELLM_SYNC_DEVICE ? owed_.all() : owed_.of(lane(stream)));
}

Error Copies::wait(Event event) {
  return owed_.anything() ? settle(owed_.of(event)) : owed_.take_error();
}

Error Copies::settle(const Arrivals& arrivals) {
  owed_.wait(arrivals);
  return owed_.take_error();
}

bool Copies::pending(Stream stream) { return owed_.anything() && !owed_.of(lane(stream)).empty(); }

bool Copies::pending(Event event) { return owed_.anything() && !owed_.of(event).empty(); }

void Copies::record(Event event, Stream stream) {
  if (owed_.anything()) owed_.record(event, lane(stream));
  if (writes_.anything()) writes_.record(event, lane(stream));
}

void Copies::wait_event(Stream stream, Event event) {
  if (owed_.anything()) owed_.wait_event(lane(stream), event);
  if (writes_.anything()) writes_.wait_event(lane(stream), event);
}

void Copies::forget(Event event) {
  if (owed_.anything()) owed_.forget(event);
  if (writes_.anything()) writes_.forget(event);
}

Copies::Device* Copies::device(int number) {
  if (number < 0 || static_cast<std::size_t>(number) >= kMaxDevices) return nullptr;
  const std::lock_guard lock(mutex_);
  std::unique_ptr<Device>& device = devices_[static_cast<std::size_t>(number)];
  if (device == nullptr) {
    const cuda::CaptureRelaxed relaxed;
    try {
      device = std::make_unique<Device>(number, owed_, writes_);
    } catch (const std::system_error&) {
      return nullptr;  // no thread to be had
    }
    cuda::get_last_error();  // of a device without memory for the blocks, say
  }
  return device.get();
}

void Copies::reset() {
  owed_.wait(owed_.all());
  writes_.wait(writes_.all());
  stop();
  const std::lock_guard lock(mutex_);
  for (auto& device : devices_) device = nullptr;
}

void Copies::stop() {
  const std::lock_guard lock(mutex_);
  for (const auto& device : devices_) {
    if (device != nullptr) device->worker.stop();
  }
}

void Copies::tell() const {
  const char* log = std::getenv("PIPELLM_LOG");
  if (log == nullptr || strcasecmp(log, "debug") != 0) return;
  std::fprintf(stderr,
               "pipellm: cudart: %llu copies to the device staged (%llu bytes), %llu to the host "
               "left to a thread (%llu bytes), %llu as CUDA does them (%llu bytes)\n",
               static_cast<unsigned long long>(to_device_.copies),
               static_cast<unsigned long long>(to_device_.bytes),
               static_cast<unsigned long long>(to_host_.copies),
               static_cast<unsigned long long>(to_host_.bytes),
               static_cast<unsigned long long>(passed_.copies),
               static_cast<unsigned long long>(passed_.bytes));
}

// CUDA is of no use in a child of a process that used it; it will say so itself.
void Copies::after_fork_in_child() noexcept { over.store(true); }

}  // namespace pipellm::cudart
