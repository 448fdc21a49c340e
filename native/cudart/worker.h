// The thread that waits for the device in the program's stead, on one device.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "cudart/owed.h"
#include "cudart/staging.h"

namespace pipellm::cudart {

// Something to do as soon as the device has come to an event. One that is not there yet holds up no
// other: streams are independent, and a program may count on that.
struct Errand {
  enum class Kind {
    kGiveBack,  // the blocks, to those for copies to the device
    kCopy,      // from the blocks, for those of copies to the host, to where `arrival` says
    kWritten,   // CUDA itself has written what `arrival` says; the event is given back
  };
  Kind kind;
  Event event;
  Blocks blocks;
  std::shared_ptr<Arrival> arrival;
};

// What one device has of ours.
struct Supplies {
  Staging to_device, to_host;
  Events events;
};

// Internally locked. What it refers to must outlive it.
class Worker {
 public:
  // `owed` is for copies, `writes` for what CUDA writes.
  Worker(int device, Supplies& supplies, Owed& owed, Owed& writes);

  void submit(Errand errand);

  // Ends the thread; what has not arrived never will, and counts as arrived with an error.
  void stop();

 private:
  void run();
  void perform(Errand& errand);
  void copy(Errand& errand);
  bool ready(const Errand& errand);

  const int device_;
  Supplies& supplies_;
  Owed& owed_;
  Owed& writes_;
  std::mutex mutex_;  // guards what follows but the thread
  std::condition_variable submitted_;
  std::deque<Errand> new_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace pipellm::cudart
