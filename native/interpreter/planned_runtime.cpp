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
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
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
    if (!candidate || given_up_) return;
    const bool unchanged = pipeline_.seal_ahead().unchanged(*candidate);
    if (ask("validated", [&] {
          return Py_BuildValue("(LO)", static_cast<long long>(now()),
                               unchanged ? Py_True : Py_False);
        })) {
      perform();
      return;
    }
  }
  pipeline_.send_waiting();
}

void PlannedRuntime::order(std::optional<Stream> stream) {
  Story story;
  const WithoutGil unlocked;
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  if (ask("order", [&] { return Py_BuildValue("(N)", number_or_none(stream)); })) {
    perform();
  } else {
    pipeline_.send_waiting();
  }
}

void PlannedRuntime::synchronize(std::optional<Stream> stream) {
  Story story;
  const WithoutGil unlocked;
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  gather();
  if (ask("synchronize", [&] {
        const Reference before(events());
        if (!before) return static_cast<PyObject*>(nullptr);
        const Reference of(Py_BuildValue("(N)", number_or_none(stream)));
        return of ? PySequence_Concat(before.get(), of.get()) : nullptr;
      })) {
    perform();
  } else {
    pipeline_.send_waiting();
  }
}

void PlannedRuntime::expect(const std::vector<ExpectedGroup>& groups) {
  Story story;
  const WithoutGil unlocked;
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  gather();
  if (ask("expect", [&] {
        const Reference before(events());
        if (!before) return static_cast<PyObject*>(nullptr);
        const Reference said(Py_BuildValue("(N)", list_of(groups, [](const ExpectedGroup& group) {
          return list_of(group, [](const auto& part) { return range(part.first, part.second); });
        })));
        return said ? PySequence_Concat(before.get(), said.get()) : nullptr;
      })) {
    perform();
  } else {
    pipeline_.send_waiting();
  }
}

void PlannedRuntime::close() {
  Story story;
  const WithoutGil unlocked;
  const std::lock_guard lock(mutex_);
  story_ = &story.text;
  if (ask("close", [] { return PyTuple_New(0); })) {
    perform();
  } else {
    pipeline_.send_waiting();
  }
}

void PlannedRuntime::gather() {
  news_ = pipeline_.seal_ahead().news();
  landed_ = pipeline_.landed();
  freed_ = pipeline_.freed();
}

PyObject* PlannedRuntime::events() const {
  const auto news = [](const SealAhead::News& one) {
    return Py_BuildValue("(KIi)", static_cast<unsigned long long>(one.id),
                         static_cast<unsigned int>(one.sealed), static_cast<int>(one.trouble));
  };
  const auto ordinal = [](Ordinal one) { return PyLong_FromUnsignedLongLong(one); };
  const auto freed = [](const auto& one) { return range(one.first, one.second); };
  return Py_BuildValue("(LNNN)", static_cast<long long>(now()), list_of(news_, news),
                       list_of(landed_, ordinal), list_of(freed_, freed));
}

template <typename Arguments>
bool PlannedRuntime::ask(const char* method, Arguments arguments) {
  orders_.clear();
  candidate_.reset();
  if (given_up_) return false;
  bool answered = false;
  std::string trouble;
  const auto body = [&](PyObject* module) {
    answered = open_executor(module);
    if (answered) {
      const Reference bound(PyObject_GetAttrString(executor_, method));
      const Reference values(bound ? arguments() : nullptr);
      const Reference answer(values ? PyObject_CallObject(bound.get(), values.get()) : nullptr);
      answered = answer && read_answer(answer.get()) && read_story();
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
