// The thread of a device's planner for prefetching: hears what the layer tells, asks the planner, hands
// its orders on. Nobody waits for it, but whoever ends it.
//
// Should the planner fail, one line on standard error says so, and nothing more is foreseen: copies are
// as right without it. So it goes when Python ends, and in a forked child.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fork.h"
#include "interpreter/interpreter.h"
#include "prefetch/prefetch_driver.h"

namespace pipellm {

// What a planner is made with; see open_prefetcher in pipellm/runtime/interpreter.py.
struct Foreseeing {
  std::uint64_t transfer_bytes;
  std::int64_t nap_ns;     // of this host's clock: between two batches of news, at least
  std::int64_t* counters;  // outlives the driver
  std::size_t counter_count;
  bool tells;  // the story of every transfer, on standard error
};

class PlannerThread final : public prefetch::Planner, private ForkAware {
 public:
  // The thread begins; nullptr, after a line on standard error, if there can be none. May take the GIL:
  // no lock of ours is held. What is passed by reference outlives it.
  static std::unique_ptr<PlannerThread> start(Interpreter& interpreter,
                                              prefetch::PrefetchDriver& layer, int device,
                                              const Foreseeing& foreseeing);
  ~PlannerThread() override;

  void expect(std::vector<std::vector<prefetch::Range>> groups) override;
  void freeze() override;
  void thaw() override;
  bool idle() override;
  void stop() override;

 private:
  using Groups = std::vector<std::vector<prefetch::Range>>;

  PlannerThread(Interpreter& interpreter, prefetch::PrefetchDriver& layer, int device,
                const Foreseeing& foreseeing);
  void after_fork_in_child() noexcept override;

  void thread_main();
  // Waits until there is something to tell. False: it is over.
  bool await_events();
  // False: there is nobody to ask any more.
  bool plan();
  bool ask(std::size_t first, std::size_t count);  // inside; false: with Python's error set
  bool open_prefetcher(PyObject* module);          // likewise
  bool read_orders(PyObject* answer);              // likewise
  void give_up(const std::string& why) const;

  Interpreter& interpreter_;
  prefetch::PrefetchDriver& layer_;
  const int device_;
  const Foreseeing foreseeing_;

  std::mutex mutex_;  // guards what follows, up to the thread
  std::condition_variable changed_;
  std::optional<Groups> expected_;
  bool stop_ = false, frozen_ = false, busy_ = false, over_ = false;
  std::unique_ptr<std::thread> thread_;

  // The thread's.
  bool last_ = false;  // it will tell no more
  std::int64_t nap_;   // at least, before the next batch
  std::vector<prefetch::News> news_;
  std::optional<Groups> said_;
  std::vector<prefetch::Order> orders_;
  std::string story_;
  PyObject* prefetcher_ = nullptr;  // the interpreter's
  PyObject* lines_ = nullptr;       // likewise; what it has told
};

}  // namespace pipellm
