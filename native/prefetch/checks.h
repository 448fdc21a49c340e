// The checking thread: whether the host still holds what was transferred, for copies whose source stays
// as it is until their stream has passed them. The stream waits for the answer; the caller does not.
//
// Bytes that differ are transferred anew, to the same place, behind all that was copied from it before.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "prefetch/flight.h"
#include "prefetch/news_box.h"
#include "prefetch/own_thread.h"
#include "prefetch/pieces.h"
#include "prefetch/readers.h"

namespace pipellm::prefetch {

struct Check {
  std::shared_ptr<Piece> piece;
  Range part;
  std::vector<std::shared_ptr<Flight>> before;  // who copied from the piece
};

// Internally locked.
class Checks {
 public:
  Checks(Below& below, Gates& gates, Pieces& pieces, Readers& readers, NewsBox& news);
  ~Checks();

  void open(std::int64_t stream) { stream_ = stream; }
  // Opens the gate when all of them hold.
  void submit(std::vector<Check> checks, std::shared_ptr<Gate> gate);

  bool idle();
  void abandon();
  bool stop();  // ends the thread, or returns false: it stays behind
  void forget_threads();

 private:
  struct Job {
    std::vector<Check> checks;
    std::shared_ptr<Gate> gate;
  };

  void thread_main(OwnThread::Self& self);
  void run(Job job, OwnThread::Self* self);  // nullptr: on a thread of the program's
  bool holds(const Check& check);
  void repair(const Check& check);

  Below& below_;
  Gates& gates_;
  Pieces& pieces_;
  Readers& readers_;
  NewsBox& news_;
  std::int64_t stream_ = 0;

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  bool working_ = false, abandoned_ = false, stop_ = false;
  OwnThread thread_;
};

}  // namespace pipellm::prefetch
