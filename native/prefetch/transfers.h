// The copy thread: copies to the device that their callers need not wait for, and what was foreseen.
//
// What was asked for goes first. Copies that wait for the thread share a transfer, as far as they fit
// into one; a longer one goes by itself, a part at a time, and the two kinds take turns. A transfer of
// what was foreseen begins when nothing else waits for the link: no thread of the program's that copies
// by itself, or did a moment ago, and no read-back. So a copy that nobody foresaw waits for at most one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "memory/address_ranges.h"
#include "prefetch/flight.h"
#include "prefetch/gather.h"
#include "prefetch/news_box.h"
#include "prefetch/order_queue.h"
#include "prefetch/own_thread.h"
#include "prefetch/pieces.h"
#include "prefetch/readers.h"
#include "prefetch/returns.h"

namespace pipellm::prefetch {

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
            const AddressRanges& never_ahead, Readers& readers, NewsBox& news);
  ~Transfers();

  // `reap` lets go of what the device is done with; called by the copy thread when it lacks room. Nothing
  // foreseen begins so many nanoseconds after a copy that a thread of the program's did by itself.
  void open(std::int64_t stream, std::uint64_t transfer_bytes, std::int64_t quiet_ns,
            std::function<void()> reap);

  // How a copy that shares a transfer is read: now, or when the transfer begins, which it does once it is
  // asked for, or as soon as it can.
  enum class Reading { kNow, kWhenAsked, kSoon };
  struct Share {
    std::shared_ptr<Gather> gather;
    std::uint64_t offset;
  };
  // Nothing: no memory, no gate, or we have stopped.
  std::optional<Share> share(const Range& source, Reading reading, const Hold& hold);
  std::uint64_t longest_share() const { return shared_bytes_ / 2; }
  void ask(Gather& gather);
  bool submit(Demand demand);  // false: we have stopped

  void order(std::vector<Order> orders);
  // A copy of this range was asked for, or it is to change: nothing that waits in an order and lies
  // inside, or touches it, is transferred.
  void end_inside(const Range& range);
  void end_touching(const Range& range);
  // Nothing foreseen is read from the host's memory when this returns, of what begins before it.
  void await_capture();
  // Whether all that was asked for has been sent, now or some milliseconds later.
  bool await_asked();
  // What was foreseen and is under way has arrived when this returns.
  void await_passed();
  // The link may be free for what was foreseen.
  void look_again();

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
  using Time = std::chrono::steady_clock::time_point;

  bool start();         // with the lock
  bool asked() const;  // likewise; whether copies that were asked for wait
  void thread_main();
  bool work(std::unique_lock<std::mutex>& lock);
  void wait(std::unique_lock<std::mutex>& lock);
  std::shared_ptr<Gather> make_gather(std::uint64_t nbytes);
  std::shared_ptr<Gather> next_gather();
  void carry(std::unique_lock<std::mutex>& lock, Gather& gather);
  bool carry_part(Demand& demand);

  // What was foreseen (transfers_foreseen.cpp).
  struct Foreseen;
  bool may_begin_foreseen();
  void carry_order(std::unique_lock<std::mutex>& lock);
  void choose(Foreseen& transfer);
  void capture(Foreseen& transfer, std::uint8_t* staging);
  void cross(Foreseen& transfer, const std::uint8_t* staging);
  void note_arrivals(std::unique_lock<std::mutex>& lock, bool wait);
  void await_room(std::unique_lock<std::mutex>& lock);

  Below& below_;
  Spare& spare_;
  Gates& gates_;
  Pieces& pieces_;
  const Returns& returns_;
  const AddressRanges& never_ahead_;
  Readers& readers_;
  NewsBox& news_;
  std::int64_t stream_ = 0;
  std::uint64_t transfer_bytes_ = 0, shared_bytes_ = 0;
  std::chrono::nanoseconds quiet_{0};
  std::function<void()> reap_;
  std::unique_ptr<Staging> staging_;  // the copy thread's, for what was foreseen

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::shared_ptr<Gather> open_;  // takes more copies
  std::deque<std::shared_ptr<Gather>> full_;
  std::vector<std::unique_ptr<Staging>> idle_staging_;
  std::deque<Demand> demands_;
  bool demand_next_ = false;
  OrderQueue orders_;
  // What was foreseen and is on its way: its places stay until it is there.
  struct Passed {
    std::shared_ptr<Gate> gate;
    std::vector<std::shared_ptr<Place>> places;
  };
  std::vector<Passed> passed_;
  std::size_t urgent_ = 0;
  Time quiet_until_{};
  std::uint64_t room_seen_ = 0;  // Spare::changes, before there was no room
  bool working_ = false, capturing_ = false, no_room_ = false, abandoned_ = false, stop_ = false;
  OwnThread thread_;
};

}  // namespace pipellm::prefetch
