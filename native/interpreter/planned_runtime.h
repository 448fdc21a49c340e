// The runtime whose decisions are the planner's: tells it events, does what it orders.
//
// What the planner has promised is followed without it (pipelined/following.h): no Python, no GIL. It
// hears of that afterwards, on a thread of the runtime's own, and promises more; or before it is asked
// something.
//
// Should the planner fail, the device is not lost: from then on every copy is sealed when it is asked
// for, in order, after one line on standard error. So it goes with copies after Python has ended.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/pool.h"
#include "interpreter/interpreter.h"
#include "pipelined/following.h"
#include "pipelined/pipeline.h"

namespace pipellm {

// What an executor is made with; see open_executor in pipellm/runtime/interpreter.py.
struct Planning {
  bool ahead;
  std::int64_t budget, patience_ns, nop_ns, seal_ns;
  std::int64_t* counters;  // outlives the driver
  std::size_t counter_count;
  bool tells;  // the story of every copy, on standard error
};

// Holds a lock while a request is planned and its bytes are handed over, as a driver's own lock would
// be held: requests go out in the order in which they get here, whole. Nothing of the program's runs
// meanwhile, and nobody waits for the lock with the GIL.
class PlannedRuntime final : public Runtime {
 public:
  // The interpreter outlives every runtime; the pipeline is the runtime's owner.
  PlannedRuntime(Interpreter& interpreter, Pipeline& pipeline, int device, const Planning& planning);
  ~PlannedRuntime() override;

  void request(Ordinal ordinal, const Transfer& transfer) override;
  void order(std::optional<Stream> stream) override;
  void synchronize(std::optional<Stream> stream) override;
  void expect(const std::vector<ExpectedGroup>& groups) override;
  void close() override;

  void freeze() override;
  void thaw() override;
  bool idle() const override { return thread_.idle(); }
  void wait_idle() override;
  void stop_threads() override;

 private:
  enum class Kind { kSpeculate, kCommit, kSend, kSendNops, kRelinquish, kReceive };
  struct Order {
    Kind kind;
    std::array<std::uint64_t, 6> values;
  };
  class Story;
  // What was done without asking: a copy, or that the program waited.
  struct Done {
    bool wait;
    std::optional<Stream> stream;  // of a wait
    Ordinal ordinal;
    Transfer transfer;
    std::uint32_t number;
    Became became;
  };

  // Does the copy as promised: true. With `trouble` if that failed half-way. With `mutex_`.
  bool follow(Ordinal ordinal, const Transfer& transfer, std::string& trouble);
  Became send(Ordinal ordinal, const Transfer& transfer, std::uint32_t number,
              const std::optional<Step>& step);
  void note(const Done& done);  // with `mutex_`
  // On the runtime's own thread: tells of what was done, and hears what is promised now.
  void tell();
  // Tells of what was done before a question. With both locks, as the rest that has to do with one.
  void catch_up();
  template <typename Arguments>
  void question(const char* method, Arguments arguments);
  void answered();
  bool ask_followed();

  // Calls `method` of the executor with the arguments that `arguments` makes inside (a new reference
  // to a tuple, or nullptr with Python's error set), and reads the answer: a list of orders, or that
  // and a speculation. False if there is nobody to ask, or the planner has failed now.
  template <typename Arguments>
  bool ask(const char* method, Arguments arguments);
  bool open_executor(PyObject* module);  // inside; false with Python's error set
  bool read_answer(PyObject* answer);    // likewise
  static bool read_order(PyObject* tuple, Order& order);
  bool read_story();
  bool read_promise();           // likewise; asks for it
  static PyObject* as_python(const Done& done);
  PyObject* events();        // inside: (now, news, landed, freed), which nobody hears of again

  void gather();
  void gather_seen();  // without what was freed
  void perform();
  void perform(const Order& order);
  void give_up(const std::string& why);

  Interpreter& interpreter_;
  Pipeline& pipeline_;
  const int device_;
  const Planning planning_;

  Pool thread_{1};
  std::atomic<bool> given_up_{false};

  std::mutex mutex_;  // guards what follows; held while messages go out, so that they go in order
  Following following_;
  std::vector<Done> done_;  // not told yet
  bool telling_ = false;    // the thread will come

  std::mutex planner_mutex_;  // taken before `mutex_`; guards all below
  PyObject* executor_ = nullptr;  // the interpreter's
  PyObject* lines_ = nullptr;     // likewise; what the executor has told
  // The answer to the last question. Kept, for its room.
  std::vector<Order> orders_;
  std::optional<Speculation> candidate_;
  std::optional<std::vector<Step>> promised_;
  std::vector<Done> told_;
  std::vector<SealAhead::News> news_;  // gathered for the next question, with the next two
  std::vector<Ordinal> landed_;
  std::vector<std::pair<std::uintptr_t, std::uint64_t>> freed_;
  std::string* story_ = nullptr;  // of the call in progress
};

}  // namespace pipellm
