// One device, as the program uses it through this layer.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "memory/pinned_memory.h"
#include "prefetch/checks.h"
#include "prefetch/lane.h"
#include "prefetch/pieces.h"
#include "prefetch/prefetch_driver.h"
#include "prefetch/readers.h"
#include "prefetch/returns.h"
#include "prefetch/transfers.h"
#include "prefetch/wait_habit.h"

namespace pipellm::prefetch {

// Thread-safe. Every entry returns a status, and is called by a thread of the program's, inside of a
// call to the driver's table, unless it says otherwise.
class Device {
 public:
  // What is passed by reference outlives it.
  Device(const PipellmDriver& below, std::int32_t device, const Options& options,
         const PinnedMemory& pinned, const AddressRanges& never_ahead);
  ~Device();

  int open();  // once, before all else

  int copy(const PipellmCopy& request);
  int sync(std::int32_t scope, std::int64_t stream);
  int stream_query(std::int64_t stream);

  // Before anything else is put on a stream: what is due is launched first.
  void before_work(std::int64_t stream);
  int event_record(LayerEvent& event, std::int64_t stream);
  int event_query(LayerEvent& event);
  int event_synchronize(LayerEvent& event);
  int stream_wait_event(std::int64_t stream, LayerEvent& event);

  // What a call to the driver below gave, or what went wrong behind its back since the program was told
  // last; then, and at the end of every call that may wait, tokens are released.
  int settled(int status);
  void settle(int status);  // without telling

  // Before memory of the host is pinned. What was copied from it as pageable memory was checked at once,
  // and may have changed since: it must be on its streams before a later copy's check repairs the piece.
  void before_pinning() { launch_all(); }
  // Before memory of this device, or of the host, is freed: nobody uses it any more.
  void before_free(const void* pointer, std::uint64_t nbytes);
  void before_host_free(const Range& range);
  // The program is short of memory: gives back what we have, and takes none soon.
  void release_memory();
  std::uint64_t held() const { return spare_.held(); }
  std::uint64_t all_held() const { return spare_.held() + gates_.held(); }

  // Any thread.
  void order(std::vector<Order> orders);
  std::vector<News> await_news(std::int64_t least, std::int64_t most) {
    return news_.wait(least, most);
  }
  void wake() { news_.wake(); }
  bool has_news() { return !news_.empty(); }
  void stop_reading(const Range& range);
  // Its owner says that it may not be read ahead, or may be again.
  void declared(const Range& range);

  // Between these nothing foreseen is transferred. For measurements.
  void freeze();
  void thaw();
  bool idle();  // whether no thread of ours has anything to do

  void stop();
  // After `stop`: whether a thread of ours still waits for one of the program's streams.
  bool left_behind() const { return left_behind_; }
  void forget_threads();  // in a forked child

 private:
  Lane* lane(std::int64_t stream);  // nullptr: the driver below has none
  template <typename Body>
  void each_lane(Body body);

  int copy_to_device(Lane& lane, const PipellmCopy& request);
  int copy_to_host(Lane& lane, const PipellmCopy& request);
  int wait(std::int32_t scope, std::int64_t stream);
  // A part of a copy by the driver below, on the calling thread.
  int copy_below(Lane& lane, const PipellmCopy& request, const Range& host);
  // From where its bytes are aside on the device, if they are on their way home.
  bool copy_from_aside(Lane& lane, const Range& host, std::uint8_t* destination);
  std::uint64_t copy_aside(Lane& lane, const PipellmCopy& request, const Hold& hold);
  int finish_copy(Lane& lane, const PipellmCopy& request, Hold hold);

  // With the lane's lock. False: not in this way.
  void add_due(Lane& lane, const PipellmDeviceCopy& copy);
  void mark_due(Lane& lane);
  bool share(Lane& lane, const Range& source, std::uint8_t* destination, Transfers::Reading reading,
             const Hold& hold);
  std::uint64_t hand_over(Lane& lane, const Range& source, std::uint8_t* destination,
                          const Hold& hold);
  bool demand(Lane& lane, const Range& source, std::uint8_t* destination, const Hold& hold,
              bool direct);
  bool copy_piece(Lane& lane, const Pieces::Part& part, std::uint8_t* destination, bool later);
  bool is_quiet(Lane& lane);
  void launch(Lane& lane);
  std::vector<std::shared_ptr<Flight>> over(Lane& lane);

  void launch_all();
  void reap();
  void grow();
  std::shared_ptr<Place> take_place(std::uint64_t nbytes);
  std::shared_ptr<Place> take_place_aside(Lane& lane, std::uint64_t nbytes);
  bool is_used(const Range& range, bool on_device);
  void bring_home(const std::vector<std::shared_ptr<Return>>& owed);
  std::vector<std::shared_ptr<Return>> owed(Lane& lane);
  void before_waiting(const std::vector<std::shared_ptr<Return>>& owed);

  Below below_;
  const PinnedMemory& pinned_;
  const AddressRanges& never_ahead_;
  const Options options_;
  Holds holds_;
  NewsBox news_;
  Spare spare_;
  Gates gates_;
  Pieces pieces_;
  Readers readers_;
  Returns returns_;
  Transfers transfers_;
  Checks checks_;
  std::int64_t wiping_stream_ = 0;
  std::optional<Transfers::Urgent> frozen_;

  std::shared_mutex lanes_mutex_;  // guards the map, not what is in it
  std::unordered_map<std::int64_t, std::unique_ptr<Lane>> lanes_;
  std::atomic<int> due_lanes_{0};
  WaitHabit wait_habit_;
  std::atomic<std::thread::id> copier_;   // who asked for the last copy
  std::atomic<std::uint64_t> alone_{0};  // copies since somebody else did, or anything was ordered
  std::atomic<bool> stopped_{false}, left_behind_{false};
};

}  // namespace pipellm::prefetch
