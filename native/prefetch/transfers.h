// The copy thread: copies to the device that their callers need not wait for, and what was foreseen.
//
// What was asked for goes first: small copies that were gathered, then large ones, a part at a time. A
// transfer of what was foreseen begins when nothing else waits, also no thread of the program's that
// copies by itself; so a copy that nobody foresaw waits for at most one of them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "memory/address_ranges.h"
#include "prefetch/flight.h"
#include "prefetch/news_box.h"
#include "prefetch/pieces.h"
#include "prefetch/returns.h"

namespace pipellm::prefetch {

// Small copies that share a transfer. Filled by one thread at a time, then handed over.
struct Gather {
  static constexpr std::uint64_t kBytes = 256 << 10;

  std::unique_ptr<std::uint8_t[]> bytes;
  std::uint64_t used = 0;
  std::shared_ptr<Place> place;
  std::shared_ptr<Gate> gate;
};

// A large copy: memory that stays as it is until the gate is open.
struct Demand {
  const std::uint8_t* source;
  std::uint8_t* destination;
  std::uint64_t nbytes;
  std::shared_ptr<Place> place;  // which the destination lies in, if it is ours
  std::shared_ptr<Gate> gate;
  Hold hold;
};

// Internally locked.
class Transfers {
 public:
  Transfers(Below& below, Spare& spare, Gates& gates, Pieces& pieces, const Returns& returns,
            const AddressRanges& never_ahead, NewsBox& news);
  ~Transfers();

  // `reap` lets go of what the device is done with; called by the copy thread when it lacks room.
  void open(std::int64_t stream, std::uint64_t transfer_bytes, std::function<void()> reap);
  // nullptr: no memory, no gate, or we have stopped.
  std::shared_ptr<Gather> gather();
  void submit(std::shared_ptr<Gather> gather);
  bool submit(Demand demand);  // false: we have stopped

  void order(std::vector<Order> orders);
  // A copy of this range was asked for, or it is to change: nothing that waits in an order and lies
  // inside, or touches it, is transferred.
  void end_inside(const Range& range);
  void end_touching(const Range& range);
  // Nothing foreseen is read from the host's memory when this returns, of what begins before it.
  void await_capture();
  // What was foreseen and is under way has arrived when this returns.
  void await_passed();

  // While one lives, a thread of the program's copies by itself.
  class Urgent {
   public:
    explicit Urgent(Transfers& transfers);
    ~Urgent();
    Urgent(const Urgent&) = delete;
    Urgent& operator=(const Urgent&) = delete;

   private:
    Transfers& transfers_;
  };

  bool idle();          // whether nothing is under way, and nothing waits
  void abandon();       // a lost context: nothing is copied any more
  void stop();          // what was asked for is done; what was foreseen is not
  void forget_threads();

 private:
  bool start();  // with the lock
  void thread_main();
  bool work(std::unique_lock<std::mutex>& lock);
  void carry(Gather& gather);
  bool carry_part(Demand& demand);
  void carry_order(std::unique_lock<std::mutex>& lock);
  void note_arrivals(std::unique_lock<std::mutex>& lock, bool wait);
  void await_room(std::unique_lock<std::mutex>& lock);
  bool capture(const Range& host, std::uint8_t* scratch);

  Below& below_;
  Spare& spare_;
  Gates& gates_;
  Pieces& pieces_;
  const Returns& returns_;
  const AddressRanges& never_ahead_;
  NewsBox& news_;
  std::int64_t stream_ = 0;
  std::uint64_t transfer_bytes_ = 0;
  std::function<void()> reap_;
  std::unique_ptr<std::uint8_t[]> scratch_;  // the copy thread's

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Gather>> gathers_;
  std::deque<Demand> demands_;
  std::deque<Order> orders_;
  std::vector<Range> captured_;  // of the order that is being carried out; who ends one takes it out
  std::vector<std::unique_ptr<std::uint8_t[]>> idle_bytes_;
  // What was foreseen and is on its way: its places stay until it is there.
  struct Passed {
    std::shared_ptr<Gate> gate;
    std::vector<std::shared_ptr<Place>> places;
  };
  std::vector<Passed> passed_;
  std::size_t urgent_ = 0;
  std::uint64_t room_seen_ = 0;  // Spare::changes, before there was no room
  bool working_ = false, capturing_ = false, no_room_ = false, abandoned_ = false, stop_ = false;
  std::unique_ptr<std::thread> thread_;
};

}  // namespace pipellm::prefetch
