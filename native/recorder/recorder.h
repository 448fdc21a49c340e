// What a program asked of its devices, event by event, in a file that survives the process.
//
// A trace is made of it (src/pipellm/trace/recording.py reads the file). The file is mapped, so an
// event is kept as soon as it is written, however the process ends, and keeping one costs no call
// into the system. No plaintext gets there, nor anything made from one, but for one bit: whether it
// is what it was when it crossed the last time.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/clock.h"
#include "base/fork.h"
#include "link/layer.h"
#include "memory/pinned_memory.h"

namespace pipellm {

// The file: a header, then events. Native byte order; whoever reads it runs on the same machine.
struct RecordHeader {
  static constexpr std::uint64_t kMagic = 0x31636572706c7000;  // changes with the layout
  std::uint64_t magic;
  std::int64_t process;
  std::int64_t begun;                 // on the emulated clock
  std::atomic<std::uint64_t> events;  // that are whole
  std::atomic<std::uint64_t> full;    // not 0: no room was left, and events are missing
};

struct RecordedEvent {
  enum Kind : std::uint8_t { kCopy = 1, kCompute, kSyncStream, kSyncDevice, kStreamWait };
  enum Flag : std::uint8_t {
    kToHost = 1,
    kBlocking = 2,
    kPinned = 4,
    kChanged = 8,  // the host's side is not what it was when it crossed the last time
    kFailed = 16,  // any event: the driver refused it, so it never was
  };
  Kind kind;
  std::uint8_t flags;
  std::uint16_t device;
  std::uint32_t kernels;  // compute
  Nanoseconds begin;      // of the call, or the operators, on the emulated clock
  Nanoseconds end;        // 0: the process ended inside of it
  std::int64_t stream;
  union {
    std::uint64_t address;  // copy: the host's side
    std::int64_t awaited;   // stream wait
  };
  std::uint64_t nbytes;  // copy; compute: device memory read and written
  std::uint64_t device_address;
  double flops;
  Nanoseconds between;  // compute: from `begin` to `end`, the time in which no operator ran
};
static_assert(sizeof(RecordHeader) == 40 && sizeof(RecordedEvent) == 72);

// A layer that changes nothing: each entry notes what is asked, then asks the table below
// (recording_api.cpp). Thread-safe. A forked child goes on in a file of its own, made at its first
// event.
class Recorder final : public Layer, private ForkAware {
 public:
  // Makes a file in `directory`; throws std::runtime_error. `pinned` is what is pinned in truth,
  // whatever the program is told. What is passed by reference outlives this.
  Recorder(const PipellmDriver& below, Clock& clock, const PinnedMemory& pinned,
           std::string directory);
  ~Recorder() override;

  Clock& clock() { return clock_; }
  const PinnedMemory& pinned() const { return pinned_; }

  // Appends an event that begins now. `finish` it with what is returned: nullptr where there was no
  // room, which is no reason to stop the program.
  RecordedEvent* begin(RecordedEvent event);
  void finish(RecordedEvent* event, int status);

  // An operator that ran from `begin` until now. Those that follow each other on a stream become
  // one event, or two: what arithmetic limits and what memory limits add up on their own.
  void operated(int device, std::int64_t stream, double flops, std::uint64_t nbytes,
                Nanoseconds begin);

  // Whether these bytes are not what they were when they crossed the last time, by a fingerprint;
  // false if they never did. The emulated clock stands still meanwhile.
  bool changed(const void* host, std::uint64_t nbytes);
  // The device writes there: what lay there before is no longer expected.
  void overwritten(const void* host, std::uint64_t nbytes);

  // Where an event was recorded last; nullopt if it never was.
  struct Place {
    int device;
    std::int64_t stream;
  };
  void event_created(const void* event, int device);
  void event_recorded(const void* event, std::int64_t stream);
  std::optional<Place> event_place(const void* event);
  void event_destroyed(const void* event);

 private:
  struct Tape;  // all that belongs to one process

  void after_fork_in_child() noexcept override;

  const std::string directory_;
  Clock& clock_;
  const PinnedMemory& pinned_;
  Tape* tape_;  // owned; leaked in a forked child, whose parent's locks may be held for ever
};

// Puts a recorder's entries into its table (recording_api.cpp).
namespace recording {
void put_entries(PipellmDriver& api);
}

}  // namespace pipellm
