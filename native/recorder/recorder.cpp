#include "recorder/recorder.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <stdexcept>
#include <string_view>

namespace pipellm {

namespace {

constexpr std::uint64_t kMost = std::uint64_t{4} << 30;  // bytes of a file: 60 million events
constexpr std::uint64_t kStep = std::uint64_t{1} << 20;  // bytes that it grows by

// Above so many operations per byte a kernel is limited by arithmetic, below by memory (facts: an
// H100's 989 TFLOP/s over its 3.35 TB/s).
constexpr double kRidge = 295;
// A longer pause between two operators is the program's, which waits for something: what follows
// it does not begin before it is over, so it is another event.
constexpr Nanoseconds kPause = 1'000'000;

// Only what may be sealed ahead can be stale; smaller transfers never are (facts: the paper).
constexpr std::uint64_t kWorthAFingerprint = 8 << 10;
constexpr std::size_t kMostFingerprints = 1 << 20;

}  // namespace

struct Recorder::Tape {
  explicit Tape(Nanoseconds now) : begun(now) {}

  std::mutex mutex;  // guards all below; not what lies in a slot that was handed out
  const Nanoseconds begun;
  bool open = false;
  std::string path;
  RecordHeader* header = nullptr;  // nullptr with `open`: there is no file, and nothing is kept
  std::uint64_t room = 0;          // bytes
  // By arithmetic and by memory: the computes that another operator may still join.
  std::array<RecordedEvent*, 2> joinable{};
  Nanoseconds computed_until = 0;

  std::map<std::pair<std::uintptr_t, std::uint64_t>, std::size_t> fingerprints;
  std::uint64_t longest = 0;  // of them
  std::unordered_map<const void*, int> event_devices;
  std::unordered_map<const void*, std::int64_t> event_streams;  // of those that were recorded

  // Throws std::runtime_error.
  void make_file(const std::string& directory) {
    open = true;
    path = directory + "/" + std::to_string(getpid()) + "-XXXXXX.events";
    const int file = mkostemps(path.data(), 7, O_CLOEXEC);
    if (file < 0) throw std::runtime_error(std::strerror(errno));
    const int error = posix_fallocate(file, 0, static_cast<off_t>(kStep));
    void* memory = error != 0 ? MAP_FAILED
                              : mmap(nullptr, kMost, PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_NORESERVE, file, 0);
    const int reason = error != 0 ? error : errno;
    close(file);
    if (memory == MAP_FAILED) {
      unlink(path.c_str());
      throw std::runtime_error(std::strerror(reason));
    }
    room = kStep;
    header = new (memory) RecordHeader{RecordHeader::kMagic, getpid(), begun, 0, 0};
  }

  RecordedEvent* append(const std::string& directory, const RecordedEvent& event) {
    if (!open) {
      try {
        make_file(directory);
      } catch (const std::runtime_error&) {
        return nullptr;  // a child's: its parent's launcher is gone, or the disk is full
      }
    }
    if (header == nullptr) return nullptr;
    const std::uint64_t count = header->events.load(std::memory_order_relaxed);
    const std::uint64_t end = sizeof(RecordHeader) + (count + 1) * sizeof(RecordedEvent);
    if (end > room && !grow()) {
      header->full = 1;
      return nullptr;
    }
    auto* slots = reinterpret_cast<RecordedEvent*>(header + 1);
    slots[count] = event;
    header->events.store(count + 1, std::memory_order_release);
    return &slots[count];
  }

  bool grow() {
    if (room + kStep > kMost) return false;
    // By path: a descriptor kept open might be closed, and its number reused, by a program that
    // becomes a daemon.
    const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return false;
    // Not a hole: that would be SIGBUS at the first write, if the disk is full by then.
    const int error = posix_fallocate(file, static_cast<off_t>(room), static_cast<off_t>(kStep));
    close(file);
    if (error != 0) return false;
    room += kStep;
    return true;
  }
};

Recorder::Recorder(const PipellmDriver& below, Clock& clock, const PinnedMemory& pinned,
                   std::string directory)
    : Layer(below), directory_(std::move(directory)), clock_(clock), pinned_(pinned) {
  recording::put_entries(api_);
  auto tape = std::make_unique<Tape>(clock.now());
  tape->make_file(directory_);
  tape_ = tape.release();
}

Recorder::~Recorder() {
  if (tape_->header != nullptr) munmap(tape_->header, kMost);
  delete tape_;
}

void Recorder::after_fork_in_child() noexcept {
  tape_ = new (std::nothrow) Tape(tape_->begun);
  if (tape_ == nullptr) std::abort();
}

RecordedEvent* Recorder::begin(RecordedEvent event) {
  event.begin = clock_.now();
  const std::lock_guard lock(tape_->mutex);
  tape_->joinable = {};
  return tape_->append(directory_, event);
}

void Recorder::finish(RecordedEvent* event, int status) {
  if (event == nullptr) return;
  if (status != PIPELLM_OK) event->flags |= RecordedEvent::kFailed;
  event->end = clock_.now();
}

void Recorder::operated(int device, std::int64_t stream, double flops, std::uint64_t nbytes,
                        Nanoseconds begin) {
  const Nanoseconds now = clock_.now();
  const bool by_arithmetic = flops > kRidge * static_cast<double>(nbytes);
  const std::lock_guard lock(tape_->mutex);
  Tape& tape = *tape_;
  const Nanoseconds pause = std::max<Nanoseconds>(0, begin - tape.computed_until);
  if (pause > kPause) tape.joinable = {};
  tape.computed_until = std::max(now, tape.computed_until);
  for (RecordedEvent* other : tape.joinable) {
    if (other != nullptr && (other->device != device || other->stream != stream)) tape.joinable = {};
  }
  RecordedEvent*& open = tape.joinable[by_arithmetic ? 0 : 1];
  RecordedEvent* const sibling = tape.joinable[by_arithmetic ? 1 : 0];
  const bool joins = open != nullptr || sibling != nullptr;
  if (open == nullptr) {
    RecordedEvent event{};
    event.kind = RecordedEvent::kCompute;
    event.device = static_cast<std::uint16_t>(device);
    event.stream = stream;
    event.begin = begin;
    open = tape.append(directory_, event);
    if (open == nullptr) return;
  }
  open->flops += flops;
  open->nbytes += nbytes;
  open->kernels += 1;
  if (joins) open->between += pause;
  open->end = now;
}

bool Recorder::changed(const void* host, std::uint64_t nbytes) {
  if (nbytes < kWorthAFingerprint) return false;
  const Paused paused(clock_);
  const std::size_t now =
      std::hash<std::string_view>{}({static_cast<const char*>(host), nbytes});
  const std::lock_guard lock(tape_->mutex);
  Tape& tape = *tape_;
  if (tape.fingerprints.size() >= kMostFingerprints) tape.fingerprints.clear();
  tape.longest = std::max(tape.longest, nbytes);
  const auto [found, fresh] =
      tape.fingerprints.try_emplace({reinterpret_cast<std::uintptr_t>(host), nbytes}, now);
  return !fresh && std::exchange(found->second, now) != now;
}

void Recorder::overwritten(const void* host, std::uint64_t nbytes) {
  const auto start = reinterpret_cast<std::uintptr_t>(host);
  const std::lock_guard lock(tape_->mutex);
  Tape& tape = *tape_;
  const std::uintptr_t before = start > tape.longest ? start - tape.longest : 0;
  auto known = tape.fingerprints.lower_bound({before, 0});
  while (known != tape.fingerprints.end() && known->first.first < start + nbytes) {
    const bool overlaps = known->first.first + known->first.second > start;
    known = overlaps ? tape.fingerprints.erase(known) : std::next(known);
  }
}

void Recorder::event_created(const void* event, int device) {
  const std::lock_guard lock(tape_->mutex);
  tape_->event_devices[event] = device;
}

void Recorder::event_recorded(const void* event, std::int64_t stream) {
  const std::lock_guard lock(tape_->mutex);
  tape_->event_streams[event] = stream;
}

std::optional<Recorder::Place> Recorder::event_place(const void* event) {
  const std::lock_guard lock(tape_->mutex);
  const auto device = tape_->event_devices.find(event);
  const auto stream = tape_->event_streams.find(event);
  if (device == tape_->event_devices.end() || stream == tape_->event_streams.end()) return {};
  return Place{device->second, stream->second};
}

void Recorder::event_destroyed(const void* event) {
  const std::lock_guard lock(tape_->mutex);
  tape_->event_devices.erase(event);
  tape_->event_streams.erase(event);
}

}  // namespace pipellm
