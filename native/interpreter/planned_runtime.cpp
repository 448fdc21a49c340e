#include "interpreter/planned_runtime.h"

#include <time.h>

#include <cstring>
#include <stdexcept>
#include <utility>

#include "interpreter/reference.h"
#include "interpreter/story.h"

namespace pipellm {

namespace {

std::int64_t now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

PyObject* number_or_none(std::optional<Stream> stream) {
  return stream ? PyLong_FromLongLong(*stream) : Py_NewRef(Py_None);
}

PyObject* range(std::uint64_t address, std::uint64_t nbytes) {
  return Py_BuildValue("(KK)", static_cast<unsigned long long>(address),
                       static_cast<unsigned long long>(nbytes));
}

PyObject* as_news(const SealAhead::News& one) {
  return Py_BuildValue("(KIi)", static_cast<unsigned long long>(one.id),
                       static_cast<unsigned int>(one.sealed), static_cast<int>(one.trouble));
}

PyObject* as_ordinal(Ordinal one) { return PyLong_FromUnsignedLongLong(one); }

// The planner hears of so many copies at once, while nobody waits.
constexpr std::size_t kToldTogether = 8;
// With so many that it has not heard of, it is asked.
constexpr std::size_t kMostUntold = 4096;

}  // namespace

// Written when nothing is locked any more: whoever reads standard error may wait for a copy.
class PlannedRuntime::Story {
 public:
  ~Story() {
    if (!text.empty()) say(text);
  }
  std::string text;
};

PlannedRuntime::PlannedRuntime(Interpreter& interpreter, Pipeline& pipeline, int device,
                               const Planning& planning)
    : interpreter_(interpreter), pipeline_(pipeline), device_(device), planning_(planning) {}

PlannedRuntime::~PlannedRuntime() {
  if (executor_ == nullptr) return;
  interpreter_.run([this](PyObject*) {
    Py_CLEAR(executor_);
    Py_CLEAR(lines_);
  });
}

void PlannedRuntime::request(Ordinal ordinal, const Transfer& transfer) {
  Story story;
  const WithoutGil unlocked;
  std::string trouble;
  {
    const std::lock_guard lock(mutex_);
    if (follow(ordinal, transfer, trouble)) return;
  }
  const std::lock_guard asking(planner_mutex_);
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  // More may have been promised meanwhile.
  if (trouble.empty() && follow(ordinal, transfer, trouble)) return;
  if (!trouble.empty()) give_up(trouble);
  catch_up();
  gather();
  const bool asked = ask("request", [&] {
    const Reference before(events());
    if (!before) return static_cast<PyObject*>(nullptr);
    const Reference transfer_values(Py_BuildValue(
        "(KiKKKLO)", static_cast<unsigned long long>(ordinal), static_cast<int>(transfer.direction),
        static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(transfer.host)),
        static_cast<unsigned long long>(transfer.nbytes),
        static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(transfer.device)),
        static_cast<long long>(transfer.stream), transfer.blocking() ? Py_True : Py_False));
    return transfer_values ? PySequence_Concat(before.get(), transfer_values.get()) : nullptr;
  });
  if (asked) {
    const std::optional<Speculation> candidate = candidate_;
    perform();
    if (given_up_) return;
    if (!candidate) {
      answered();
      return;
    }
    const bool unchanged = pipeline_.seal_ahead().unchanged(*candidate);
    if (ask("validated", [&] {
          return Py_BuildValue("(LO)", static_cast<long long>(now()),
                               unchanged ? Py_True : Py_False);
        })) {
      perform();
      answered();
      return;
    }
  }
  pipeline_.send_waiting();
}

bool PlannedRuntime::follow(Ordinal ordinal, const Transfer& transfer, std::string& trouble) {
  if (given_up_ || done_.size() >= kMostUntold || pipeline_.any_freed()) return false;
  if (!following_.fits(transfer, pipeline_.next(kH2d))) return false;
  Done done{.wait = false,
            .stream = {},
            .ordinal = ordinal,
            .transfer = transfer,
            .number = pipeline_.next(transfer.direction),
            .became = Became::kClean};
  const std::optional<Step> step = following_.take(transfer);
  try {
    if (transfer.direction == kD2h) {
      pipeline_.receive(ordinal, done.number);
    } else {
      done.became = send(ordinal, transfer, done.number, step);
    }
  } catch (const ContextLost&) {
    throw;
  } catch (const std::exception& error) {
    trouble = error.what();
    return false;
  }
  note(done);
  return true;
}

Became PlannedRuntime::send(Ordinal ordinal, const Transfer& transfer, std::uint32_t number,
                            const std::optional<Step>& step) {
  if (!step) return pipeline_.send(ordinal, number, std::nullopt);
  SealAhead& ahead = pipeline_.seal_ahead();
  const std::uint32_t count = messages_of(transfer.nbytes);
  // Of one message, whoever moves it looks.
  if (count == 1) return pipeline_.send(ordinal, number, step->speculation);
  const bool whole = ahead.whole(step->speculation, count);
  if (!ahead.unchanged(step->speculation)) {
    ahead.relinquish(step->speculation);
    pipeline_.send(ordinal, number, std::nullopt);
    return Became::kStale;
  }
  pipeline_.send(ordinal, number, step->speculation);
  return whole ? Became::kClean : Became::kLate;
}

void PlannedRuntime::note(const Done& done) {
  done_.push_back(done);
  if (telling_ || !(done.wait || done_.size() >= kToldTogether)) return;
  telling_ = thread_.submit([this] { tell(); });
}

void PlannedRuntime::tell() {
  Story story;
  const std::lock_guard asking(planner_mutex_);
  story_ = &story.text;
  // First: what has landed was asked for, and so noted or being noted.
  gather_seen();
  {
    const std::lock_guard lock(mutex_);
    telling_ = false;
    told_.clear();
    told_.swap(done_);
  }
  if (told_.empty()) return;
  if (!ask_followed()) return;
  try {
    for (const Order& order : orders_) {
      if (order.kind != Kind::kSpeculate && order.kind != Kind::kRelinquish) {
        throw std::logic_error("it sends what was sent");
      }
      perform(order);
    }
  } catch (const std::exception& error) {
    give_up(error.what());
  }
  const std::lock_guard lock(mutex_);
  if (given_up_ || !promised_) {
    following_.end();
  } else {
    following_.extend(*promised_);
  }
}

void PlannedRuntime::catch_up() {
  following_.end();
  gather_seen();
  told_.clear();
  told_.swap(done_);
  if (!told_.empty() && ask_followed()) perform();
}

void PlannedRuntime::answered() {
  if (!given_up_ && promised_) following_.extend(*promised_);
}

bool PlannedRuntime::ask_followed() {
  return ask("followed", [&] {
    const std::vector<SealAhead::News> news = std::exchange(news_, {});
    const std::vector<Ordinal> landed = std::exchange(landed_, {});
    return Py_BuildValue("(NNN)", list_of(news, as_news), list_of(landed, as_ordinal),
                         list_of(told_, as_python));
  });
}

template <typename Arguments>
void PlannedRuntime::question(const char* method, Arguments arguments) {
  catch_up();
  gather();
  if (ask(method, arguments)) {
    perform();
    answered();
  } else {
    pipeline_.send_waiting();
  }
}

void PlannedRuntime::order(std::optional<Stream> stream) {
  Story story;
  const WithoutGil unlocked;
  {
    const std::lock_guard lock(mutex_);
    if (following_.allowed()) return;  // nothing waits
  }
  const std::lock_guard asking(planner_mutex_);
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  if (ask("order", [&] { return Py_BuildValue("(N)", number_or_none(stream)); })) {
    perform();
    answered();
  } else {
    pipeline_.send_waiting();
  }
}

void PlannedRuntime::synchronize(std::optional<Stream> stream) {
  Story story;
  const WithoutGil unlocked;
  {
    const std::lock_guard lock(mutex_);
    if (following_.allowed() && !given_up_ && done_.size() < kMostUntold) {
      note({.wait = true,
            .stream = stream,
            .ordinal = 0,
            .transfer = {},
            .number = 0,
            .became = Became::kClean});
      return;
    }
  }
  const std::lock_guard asking(planner_mutex_);
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  question("synchronize", [&] {
    const Reference before(events());
    if (!before) return static_cast<PyObject*>(nullptr);
    const Reference of(Py_BuildValue("(N)", number_or_none(stream)));
    return of ? PySequence_Concat(before.get(), of.get()) : nullptr;
  });
}

void PlannedRuntime::expect(const std::vector<ExpectedGroup>& groups) {
  Story story;
  const WithoutGil unlocked;
  const std::lock_guard asking(planner_mutex_);
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  question("expect", [&] {
    const Reference before(events());
    if (!before) return static_cast<PyObject*>(nullptr);
    const Reference said(Py_BuildValue("(N)", list_of(groups, [](const ExpectedGroup& group) {
      return list_of(group, [](const auto& part) { return range(part.first, part.second); });
    })));
    return said ? PySequence_Concat(before.get(), said.get()) : nullptr;
  });
}

void PlannedRuntime::close() {
  Story story;
  const WithoutGil unlocked;
  const std::lock_guard asking(planner_mutex_);
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  question("close", [] { return PyTuple_New(0); });
}

// Whoever waits for the thread lets go of the GIL, which it may need.
void PlannedRuntime::freeze() {
  const WithoutGil unlocked;
  thread_.freeze();
}

void PlannedRuntime::thaw() { thread_.thaw(); }

void PlannedRuntime::wait_idle() {
  const WithoutGil unlocked;
  {
    const std::lock_guard lock(mutex_);
    if (!done_.empty() && !telling_) telling_ = thread_.submit([this] { tell(); });
  }
  thread_.wait_idle();
}

void PlannedRuntime::stop_threads() {
  const WithoutGil unlocked;
  thread_.stop();
}

void PlannedRuntime::gather_seen() {
  const std::vector<SealAhead::News> news = pipeline_.seal_ahead().news();
  news_.insert(news_.end(), news.begin(), news.end());
  const std::vector<Ordinal> landed = pipeline_.landed();
  landed_.insert(landed_.end(), landed.begin(), landed.end());
}

void PlannedRuntime::gather() {
  gather_seen();
  const auto freed = pipeline_.freed();
  freed_.insert(freed_.end(), freed.begin(), freed.end());
}

PyObject* PlannedRuntime::events() {
  const std::vector<SealAhead::News> news = std::exchange(news_, {});
  const std::vector<Ordinal> landed = std::exchange(landed_, {});
  const std::vector<std::pair<std::uintptr_t, std::uint64_t>> freed = std::exchange(freed_, {});
  const auto as_range = [](const auto& one) { return range(one.first, one.second); };
  return Py_BuildValue("(LNNN)", static_cast<long long>(now()), list_of(news, as_news),
                       list_of(landed, as_ordinal), list_of(freed, as_range));
}

template <typename Arguments>
bool PlannedRuntime::ask(const char* method, Arguments arguments) {
  orders_.clear();
  candidate_.reset();
  promised_.reset();
  if (given_up_) return false;
  bool answered = false;
  std::string trouble;
  const auto body = [&](PyObject* module) {
    answered = open_executor(module);
    if (answered) {
      const Reference bound(PyObject_GetAttrString(executor_, method));
      const Reference values(bound ? arguments() : nullptr);
      const Reference answer(values ? PyObject_CallObject(bound.get(), values.get()) : nullptr);
      answered = answer && read_answer(answer.get()) && (candidate_ || read_promise()) &&
                 read_story();
    }
    if (!answered) trouble = taken_error();
  };
  try {
    interpreter_.revive();
    if (!interpreter_.run(body)) return false;  // Python ends, or has ended
  } catch (const std::exception& error) {
    answered = false;
    trouble = error.what();
  }
  if (!answered) give_up(trouble);
  return answered;
}

bool PlannedRuntime::open_executor(PyObject* module) {
  if (executor_ != nullptr) return true;
  const Reference counters(PyMemoryView_FromMemory(
      reinterpret_cast<char*>(planning_.counters),
      static_cast<Py_ssize_t>(planning_.counter_count * sizeof(std::int64_t)), PyBUF_WRITE));
  if (!counters) return false;
  if (planning_.tells && lines_ == nullptr) {
    lines_ = PyList_New(0);
    if (lines_ == nullptr) return false;
  }
  const Reference tell(planning_.tells ? PyObject_GetAttrString(lines_, "append")
                                       : Py_NewRef(Py_None));
  if (!tell) return false;
  executor_ = PyObject_CallMethod(
      module, "open_executor", "iOO(OLL)(LL)", device_, counters.get(), tell.get(),
      planning_.ahead ? Py_True : Py_False, static_cast<long long>(planning_.budget),
      static_cast<long long>(planning_.patience_ns), static_cast<long long>(planning_.nop_ns),
      static_cast<long long>(planning_.seal_ns));
  return executor_ != nullptr;
}

bool PlannedRuntime::read_answer(PyObject* answer) {
  PyObject* list = answer;
  if (PyTuple_Check(answer)) {
    PyObject* candidate = nullptr;
    if (!PyArg_ParseTuple(answer, "OO", &list, &candidate)) return false;
    if (candidate != Py_None) {
      candidate_ = PyLong_AsUnsignedLongLong(candidate);
      if (PyErr_Occurred() != nullptr) return false;
    }
  }
  if (!PyList_Check(list)) {
    PyErr_SetString(PyExc_TypeError, "an executor's answer is a list of orders");
    return false;
  }
  const Py_ssize_t count = PyList_GET_SIZE(list);
  orders_.resize(static_cast<std::size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!read_order(PyList_GET_ITEM(list, i), orders_[static_cast<std::size_t>(i)])) return false;
  }
  return true;
}

bool PlannedRuntime::read_order(PyObject* tuple, Order& order) {
  static constexpr struct {
    const char* name;
    Kind kind;
    Py_ssize_t values;
  } kOrders[] = {
      {"speculate", Kind::kSpeculate, 6}, {"commit", Kind::kCommit, 3},
      {"send", Kind::kSend, 2},           {"send_nops", Kind::kSendNops, 2},
      {"relinquish", Kind::kRelinquish, 1}, {"receive", Kind::kReceive, 2},
  };
  if (PyTuple_Check(tuple) && PyTuple_GET_SIZE(tuple) > 0) {
    PyObject* const name = PyTuple_GET_ITEM(tuple, 0);
    for (const auto& known : kOrders) {
      if (!PyUnicode_Check(name) || PyTuple_GET_SIZE(tuple) != known.values + 1 ||
          PyUnicode_CompareWithASCIIString(name, known.name) != 0) {
        continue;
      }
      order.kind = known.kind;
      for (Py_ssize_t i = 0; i < known.values; ++i) {
        order.values[static_cast<std::size_t>(i)] =
            PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(tuple, i + 1));
      }
      return PyErr_Occurred() == nullptr;
    }
  }
  PyErr_Format(PyExc_ValueError, "no such order: %R", tuple);
  return false;
}

bool PlannedRuntime::read_promise() {
  const Reference list(PyObject_CallMethod(executor_, "promise", nullptr));
  if (!list) return false;
  if (list.get() == Py_None) return true;
  if (!PyList_Check(list.get())) {
    PyErr_SetString(PyExc_TypeError, "what an executor promises is a list");
    return false;
  }
  std::vector<Step>& steps = promised_.emplace();
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.get()); ++i) {
    unsigned long long speculation = 0, address = 0, nbytes = 0;
    unsigned int number = 0;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(list.get(), i), "KKKI", &speculation, &address, &nbytes,
                          &number)) {
      return false;
    }
    steps.push_back({speculation, static_cast<std::uintptr_t>(address), nbytes, number});
  }
  return true;
}

PyObject* PlannedRuntime::as_python(const Done& done) {
  if (done.wait) return Py_BuildValue("(N)", number_or_none(done.stream));
  const Transfer& transfer = done.transfer;
  return Py_BuildValue(
      "(KiKKKLOIi)", static_cast<unsigned long long>(done.ordinal),
      static_cast<int>(transfer.direction),
      static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(transfer.host)),
      static_cast<unsigned long long>(transfer.nbytes),
      static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(transfer.device)),
      static_cast<long long>(transfer.stream), transfer.blocking() ? Py_True : Py_False,
      static_cast<unsigned int>(done.number), static_cast<int>(done.became));
}

bool PlannedRuntime::read_story() { return pipellm::read_story(lines_, *story_); }

void PlannedRuntime::perform() {
  try {
    for (const Order& order : orders_) perform(order);
  } catch (const ContextLost&) {
    throw;
  } catch (const std::exception& error) {
    // The planner believes that it was done.
    give_up(error.what());
    pipeline_.send_waiting();
  }
}

void PlannedRuntime::perform(const Order& order) {
  const auto& values = order.values;
  const auto narrow = [&](std::size_t index) { return static_cast<std::uint32_t>(values[index]); };
  switch (order.kind) {
    case Kind::kSpeculate:
      pipeline_.seal_ahead().speculate(values[0], reinterpret_cast<const std::uint8_t*>(values[1]),
                                      values[2], narrow(3), narrow(4), narrow(5));
      break;
    case Kind::kCommit:
      pipeline_.send(values[0], narrow(1), values[2]);
      break;
    case Kind::kSend:
      pipeline_.send(values[0], narrow(1), std::nullopt);
      break;
    case Kind::kSendNops:
      pipeline_.send_nops(narrow(0), narrow(1));
      break;
    case Kind::kRelinquish:
      pipeline_.seal_ahead().relinquish(values[0]);
      break;
    case Kind::kReceive:
      pipeline_.receive(values[0], narrow(1));
      break;
  }
}

void PlannedRuntime::give_up(const std::string& why) {
  given_up_ = true;
  *story_ += "pipellm: GPU " + std::to_string(device_) + ": the planner failed (" + why +
             "); from now on every copy is sealed when it is asked for\n";
  pipeline_.seal_ahead().relinquish_all();
}

}  // namespace pipellm
