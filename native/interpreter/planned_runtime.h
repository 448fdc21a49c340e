// The runtime whose decisions are the planner's: tells it events, does what it orders.
//
// Should the planner fail, the device is not lost: from then on every copy is sealed when it is asked
// for, in order, after one line on standard error. So it goes with copies after Python has ended.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "interpreter/interpreter.h"
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

// Holds its lock while a request is planned and its bytes are handed over, as a driver's own lock would
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

 private:
  enum class Kind { kSpeculate, kCommit, kSend, kSendNops, kRelinquish, kReceive };
  struct Order {
    Kind kind;
    std::array<std::uint64_t, 6> values;
  };
  class Story;

  // Calls `method` of the executor with the arguments that `arguments` makes inside (a new reference
  // to a tuple, or nullptr with Python's error set), and reads the answer: a list of orders, or that
  // and a speculation. False if there is nobody to ask, or the planner has failed now.
  template <typename Arguments>
  bool ask(const char* method, Arguments arguments);
  bool open_executor(PyObject* module);  // inside; false with Python's error set
  bool read_answer(PyObject* answer);    // likewise
  static bool read_order(PyObject* tuple, Order& order);
  bool read_story();
  PyObject* events() const;  // inside: (now, news, landed, freed)

  void gather();
  void perform();
  void perform(const Order& order);
  void give_up(const std::string& why);

  Interpreter& interpreter_;
  Pipeline& pipeline_;
  const int device_;
  const Planning planning_;

  std::mutex mutex_;  // guards all below
  PyObject* executor_ = nullptr;  // the interpreter's
  PyObject* lines_ = nullptr;     // likewise; what the executor has told
  bool given_up_ = false;
  // The answer to the last question, and the events that go with the next one. Kept, for their room.
  std::vector<Order> orders_;
  std::optional<Speculation> candidate_;
  std::vector<SealAhead::News> news_;
  std::vector<Ordinal> landed_;
  std::vector<std::pair<std::uintptr_t, std::uint64_t>> freed_;
  std::string* story_ = nullptr;  // of the call in progress
};

}  // namespace pipellm
