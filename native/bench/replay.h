// Programs given as lists of operations, done as a C program would do them: no Python between two of
// them. For measurements. While no list is being done the world stands still: the emulated clock, and
// the threads that seal ahead, so that what a measurement does meanwhile (verify, prepare) gives no
// policy an advantage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "link/layer.h"
#include "link/transfer.h"

namespace pipellm {

// What memory of a measurement holds: bytes that follow from `tag`, another tag giving others in every
// 64-bit word. Memory is aligned to 8 bytes.
void fill_pattern(void* start, std::uint64_t nbytes, std::uint64_t tag);
bool holds_pattern(const void* start, std::uint64_t nbytes, std::uint64_t tag);

// Used by one thread. Memory that it allocates lives as long as the process.
class Replay {
 public:
  enum class Kind : std::int64_t {
    kCopy,         // a: direction, b: host address, c: device address, d: bytes, stream, e: asynchronous
    kBusy,         // a: nanoseconds of work on `stream`; b: launches, for the host to pay
    kSynchronize,  // `stream`; < 0: the device
    kStreamWait,   // `stream` waits for stream a
    kFill,         // the program writes: b: host address, d: bytes, a: tag
    kIdle,         // a: nanoseconds
    kMark,         // note the time
  };
  struct Operation {
    Kind kind;
    std::int64_t stream;  // as the program numbers them; 0 is the default one
    std::int64_t a, b, c, d, e;
  };

  // Device 0 of `driver`. What stands still between two lists: `clock`, and the `layers` that the
  // driver has. All outlive this object. `launch`: what the host pays for a kernel's.
  //
  // `charged`: on a clock that goes slower than the wall's, the program's thread is charged for what it
  // does itself in copies, launches and waits, as if it had taken as long on the emulated clock; not for
  // the emulated driver's part, which the profile's times stand for. Others
  // help with the messages of a copy, each with one: an operation of several is charged as if so many
  // cores had shared it, at most the slowdown. On such a clock, waits in which no thread works are
  // skipped, since they would end alike: neither one of the layers' nor, by `device_idle`, one that
  // plays the device.
  Replay(const PipellmDriver& driver, std::vector<Layer*> layers, Clock& clock, Nanoseconds launch,
         bool charged, std::function<bool()> device_idle);
  ~Replay();

  void* host_memory(std::uint64_t nbytes, bool pinned);
  void* device_memory(std::uint64_t nbytes);

  // Does them, and returns the emulated time, in nanoseconds, at each mark. Throws what the driver
  // says, ContextLost for one; std::invalid_argument for an unknown kind.
  std::vector<Nanoseconds> run(std::span<const Operation> operations);

 private:
  void perform(const Operation& operation, std::vector<Nanoseconds>& marks);
  void perform_and_charge(const Operation& operation, std::vector<Nanoseconds>& marks);
  double messages_in(const Operation& operation);
  Stream stream(std::int64_t number);

  class Thawed;
  void freeze();
  void thaw();

  const PipellmDriver& driver_;
  const std::vector<Layer*> layers_;
  Clock& clock_;
  const Nanoseconds launch_;
  const bool charged_;
  std::uint64_t to_host_ = 0;  // messages asked for since the program last waited
  std::unordered_map<std::int64_t, Stream> streams_;
};

}  // namespace pipellm
