// Prefetching into device memory: a driver's table over any driver's table.
//
//   program ──► request path: in the prefetch buffer? ──yes──► device-to-device copy on the program's
//                   │ no                                        stream, gated if it must be checked
//                   ▼
//              copy threads ──► transfer ──► prefetch buffer, or where the program wants it
//
// Which way a copy goes (device.h):
//   to the device   in the buffer, whole or as a part    a device copy, *due* on its stream
//                   small, asynchronous                  captured at once; shares a transfer with others
//                   large, asynchronous, pinned          handed to the copy thread; the stream waits
//                   else, or no room                     the driver below, on the calling thread
//   to the host     asynchronous, pinned, and room       *staged*: a device copy, brought home later
//                   else                                 the driver below, on the calling thread
// What is due on a stream is launched, in one batch, before anything else is put on that stream, and
// before anybody asks or waits for it. So CUDA's order holds on each stream, and between streams by
// the program's own events.
//
// What is in the buffer is sent only if the host still holds the same bytes: a 128-bit hash of what was
// transferred and of the memory as it is at the request. Where the program must not touch the source
// before its stream has passed the copy, a thread of ours compares, and the stream waits for it;
// elsewhere the calling thread does. Bytes that differ are transferred anew. So no page need be watched.
//
// Threads. One *copy thread* for each device, for copies to it: copies of one context serialise. It takes
// what was asked for before what was foreseen, one transfer at a time. One *return thread*, for what is to
// be brought home: a program's thread that waits for such a copy does it itself if nobody has begun. One
// *checking thread*. None ever waits for one of the program's streams while a copy could be done.
//
// Locks. A stream's lock is held while calls are put on it, so that each is in its place; those do not wait.
// No lock is held while a thread waits, and none while a token is released.
//
// Faults. A lost context is the driver's below: every call says so. A copy that fails after its call has
// returned is told by every later call. In a forked child the table below answers alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/fork.h"
#include "link/layer.h"
#include "memory/address_ranges.h"
#include "memory/pinned_memory.h"
#include "prefetch/orders.h"
#include "prefetch/planner.h"

namespace pipellm::prefetch {

class Device;

struct Options {
  std::uint64_t budget;          // most device memory that we hold, in bytes
  std::uint64_t transfer_bytes;  // longest transfer of several pieces
  // That read the host's memory together, the copy thread among them: cores to spare.
  std::size_t threads = 1;
  // So long after a copy that a thread of the program's did by itself nothing foreseen is begun: such copies
  // come one after the other, and each would wait for it.
  std::int64_t quiet_ns = 250'000;
};

// Thread-safe. What is passed by reference outlives it; nobody else may use `below` for copies meanwhile.
class PrefetchDriver final : public Layer, private ForkAware {
 public:
  // Called when the program first uses a device, on its thread, without a lock of ours. nullptr: nobody
  // plans for that device.
  using MakePlanner = std::function<std::unique_ptr<Planner>(int device, PrefetchDriver&)>;

  // `never_ahead`: host memory that is not read before a copy of it is asked for. Without
  // `make_planner`, whoever calls `order` plans.
  PrefetchDriver(const PipellmDriver& below, const Options& options,
                 const AddressRanges& never_ahead, MakePlanner make_planner = {});
  ~PrefetchDriver() override;

  Planner* planner(int device);  // nullptr: nobody has used the device, or nobody plans for it

  // A planner's side, any thread; never waits for a copy. A device that nobody has used has no news.
  void order(int device, std::vector<Order> orders);
  // What happened since the last time: returns when there is much, when the program waits, or after
  // `most` nanoseconds; not before `least` have passed, unless `wake` was called.
  std::vector<News> await_news(int device, std::int64_t least, std::int64_t most);
  void wake(int device);  // whoever awaits news, though there be none
  bool has_news(int device) const;
  std::uint64_t held(int device) const;  // bytes of the prefetch buffer

  void stop_reading(const void* start, std::uint64_t nbytes) override;
  void freeze() override;
  void thaw() override;
  bool idle() override;
  // Before the process ends: what is under way is finished, our threads end, and copies go as they
  // would without us.
  void stop_threads() override;

  // What follows is for the entries of the table.

  // In a forked child the table below answers alone: no thread of ours is there, and locks may be held
  // for ever.
  bool forked() const { return forked_; }
  PinnedMemory& pinned() { return pinned_; }  // what is, for the program
  // nullptr, with the status that the driver below gave.
  Device* device(std::int32_t number, int& status);
  Device* device_if_used(std::int32_t number) const;
  template <typename Body>
  void each_device(Body body) const {
    for (const auto& slot : devices_) {
      if (Device* const device = slot.load(std::memory_order_acquire)) body(*device);
    }
  }

  // Device memory that the program has, by address.
  void add_block(const void* start, std::uint64_t nbytes);
  std::uint64_t remove_block(const void* start);  // 0: there is none

 private:
  void after_fork_in_child() noexcept override;
  Device* open(std::int32_t number, int& status);
  void add_planner(std::int32_t number);
  template <typename Body>
  void each_planner(Body body);

  const PipellmDriver& table_;  // below
  const Options options_;
  const AddressRanges& never_ahead_;
  const MakePlanner make_planner_;
  PinnedMemory pinned_;
  std::mutex mutex_;  // held while a device is made; guards the next two
  bool stopped_ = false;
  std::vector<std::unique_ptr<Planner>> planners_;
  std::vector<std::atomic<Device*>> devices_;  // owned
  std::atomic<bool> used_{false}, forked_{false};
  std::mutex blocks_mutex_;
  std::unordered_map<const void*, std::uint64_t> blocks_;
};

// Puts the layer's entries into its table (prefetch_api.cpp).
void put_entries(PipellmDriver& api);

}  // namespace pipellm::prefetch
