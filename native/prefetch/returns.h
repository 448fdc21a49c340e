// Copies to the host that their callers need not wait for. Their bytes are copied aside on the device, in
// the order of the program's stream, and brought home later: by the return thread, or by a thread of the
// program's that waits for them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "prefetch/flight.h"
#include "prefetch/news_box.h"
#include "prefetch/own_thread.h"
#include "prefetch/pieces.h"

namespace pipellm::prefetch {

struct Return {
  Range host;
  std::shared_ptr<Place> place;  // where its bytes are aside
  Hold hold;
  std::atomic<bool> home{false};

  // Guarded by Returns.
  std::shared_ptr<Flight> flight;               // which copies them aside; nullptr: not launched yet
  std::vector<std::shared_ptr<Return>> after;  // into the same bytes, before
  bool taken = false;
};

// Internally locked.
class Returns {
 public:
  Returns(Below& below, Pieces& pieces, NewsBox& news);
  ~Returns();

  // `launch` launches what is due on every stream; `link_is_free` is told when nothing needs it any more.
  void open(std::int64_t stream, std::uint64_t transfer_bytes, std::function<void()> launch,
            std::function<void()> link_is_free);
  // A copy that is asked for; it is under way from now on. nullptr: we have stopped.
  std::shared_ptr<Return> begin(const Range& host, std::shared_ptr<Place> place, Hold hold);
  // `flight` has been launched.
  void launched(const std::shared_ptr<Return>& copy, const std::shared_ptr<Flight>& flight);

  // Those under way that touch this range, the oldest first.
  std::vector<std::shared_ptr<Return>> touching(const Range& range) const;
  bool touches(const Range& range) const;
  // Whether bytes are on their way home, or wait for it and for nothing else.
  bool need_link() const { return needing_.load(std::memory_order_acquire) > 0; }
  // nullptr: it is home.
  std::shared_ptr<Place> place_of(const Return& copy) const;
  // Returns when it is home, or lost with its context.
  void bring_home(const std::shared_ptr<Return>& copy);
  // The same before the device has copied it aside: what a copy costs the driver below is paid while the
  // device works. Copies of other threads may have to wait until then. Does nothing unless it is the only
  // one under way.
  void bring_home_early(const std::shared_ptr<Return>& copy);

  // Waits while bytes are on their way home, until some have come there. False: none are.
  bool await_some_home();

  bool idle() const;  // whether all that was launched is home
  void abandon();  // a lost context: nothing is brought home any more, and nobody writes to the host
  // Brings home what the device has copied aside, or does soon; who waits for the rest does it himself.
  // Ends the thread, or returns false: it stays behind.
  bool stop();
  void forget_threads();  // in a forked child

 private:
  using Group = std::vector<std::shared_ptr<Return>>;

  class LinkUse;

  void thread_main(OwnThread::Self& self);
  // Takes what the device has copied aside, to be carried; if there is nothing, `awaited` does so next.
  Group next(std::unique_lock<std::mutex>& lock, std::shared_ptr<Flight>& awaited);
  bool may_be_taken(const Return& copy) const;
  bool is_aside(Flight& flight);
  void await_aside(Flight& flight);
  void carry(const Group& group, bool keep);
  void copy_home(const Group& group, bool keep);
  void finish(const Group& group);
  static void let_go(Return& copy);

  Below& below_;
  Pieces& pieces_;
  NewsBox& news_;
  std::int64_t stream_ = 0;
  std::uint64_t transfer_bytes_ = 0;
  std::function<void()> launch_, link_is_free_;
  std::unique_ptr<std::uint8_t[]> scratch_;  // the return thread's
  std::atomic<int> needing_{0};  // the link

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Return>> under_way_;  // in the order of `begin`
  bool abandoned_ = false, stop_ = false;
  std::size_t carrying_ = 0;
  std::uint64_t landings_ = 0;
  OwnThread thread_;
};

}  // namespace pipellm::prefetch
