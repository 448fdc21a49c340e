#include "interpreter/planner_thread.h"

#include <algorithm>
#include <exception>
#include <span>
#include <utility>

#include "interpreter/reference.h"
#include "interpreter/story.h"

namespace pipellm {

namespace {

using prefetch::News;
using prefetch::Order;
using prefetch::Range;

// So long it sleeps while there is little news.
constexpr std::int64_t kLittleNews = 20'000'000;
// The longest nap, in shortest ones.
constexpr std::int64_t kLongestNap = 16;
// So many are told at a time: the program's threads do without the GIL meanwhile.
constexpr std::size_t kTold = 32;

bool read_range(PyObject* tuple, Range& range) {
  unsigned long long start = 0, nbytes = 0;
  if (!PyArg_ParseTuple(tuple, "KK", &start, &nbytes)) return false;
  range = {static_cast<std::uintptr_t>(start), nbytes};
  return true;
}

PyObject* tuple_of(const News& news) {
  return Py_BuildValue("(iKKLK)", static_cast<int>(news.kind),
                       static_cast<unsigned long long>(news.host.start),
                       static_cast<unsigned long long>(news.host.nbytes),
                       static_cast<long long>(news.stream),
                       static_cast<unsigned long long>(news.found));
}

PyObject* tuple_of(const Range& range) {
  return Py_BuildValue("(KK)", static_cast<unsigned long long>(range.start),
                       static_cast<unsigned long long>(range.nbytes));
}

}  // namespace

std::unique_ptr<PlannerThread> PlannerThread::start(Interpreter& interpreter,
                                                    prefetch::PrefetchDriver& layer, int device,
                                                    const Foreseeing& foreseeing) {
  std::unique_ptr<PlannerThread> made(
      new PlannerThread(interpreter, layer, device, foreseeing));
  try {
    interpreter.revive();  // here: audit hooks are the program's
    made->thread_ = std::make_unique<std::thread>([raw = made.get()] { raw->thread_main(); });
  } catch (const std::exception& error) {
    made->give_up(error.what());
    return nullptr;
  }
  return made;
}

PlannerThread::PlannerThread(Interpreter& interpreter, prefetch::PrefetchDriver& layer, int device,
                             const Foreseeing& foreseeing)
    : interpreter_(interpreter),
      layer_(layer),
      device_(device),
      foreseeing_(foreseeing),
      nap_(foreseeing.nap_ns) {}

PlannerThread::~PlannerThread() {
  stop();
  if (prefetcher_ == nullptr) return;
  interpreter_.run([this](PyObject*) {
    Py_CLEAR(prefetcher_);
    Py_CLEAR(lines_);
  });
}

// The thread is not there, and what it had may be half changed.
void PlannerThread::after_fork_in_child() noexcept {
  (void)thread_.release();
  prefetcher_ = lines_ = nullptr;
}

void PlannerThread::expect(Groups groups) {
  {
    const std::lock_guard lock(mutex_);
    expected_ = std::move(groups);
  }
  layer_.wake(device_);
}

void PlannerThread::freeze() {
  const WithoutGil unlocked;
  std::unique_lock lock(mutex_);
  frozen_ = true;
  changed_.wait(lock, [this] { return !busy_; });
}

void PlannerThread::thaw() {
  const std::lock_guard lock(mutex_);
  frozen_ = false;
  changed_.notify_all();
}

bool PlannerThread::idle() {
  const std::lock_guard lock(mutex_);
  return over_ || thread_ == nullptr || (!busy_ && !expected_ && !layer_.has_news(device_));
}

// Who waits for the thread may not have the GIL: it may be waiting for that.
void PlannerThread::stop() {
  const WithoutGil unlocked;
  std::unique_ptr<std::thread> thread;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    thread = std::move(thread_);
    changed_.notify_all();
  }
  if (thread == nullptr) return;
  layer_.wake(device_);
  thread->join();
}

void PlannerThread::thread_main() {
  while (await_events()) {
    const bool goes_on = plan();
    const std::lock_guard lock(mutex_);
    busy_ = false;
    changed_.notify_all();
    if (goes_on) continue;
    over_ = true;
    return;
  }
}

bool PlannerThread::await_events() {
  for (;;) {
    std::vector<News> news = layer_.await_news(device_, nap_, std::max(nap_, kLittleNews));
    news_.insert(news_.end(), news.begin(), news.end());
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stop_ || !frozen_; });
    if (stop_ && (last_ || news_.empty())) return false;
    last_ = stop_;  // for the statistics
    said_ = std::exchange(expected_, std::nullopt);
    busy_ = !news_.empty() || said_;
    if (busy_) return true;
  }
}

bool PlannerThread::plan() {
  std::string trouble;
  bool answered = true, there = true, ordered = false;
  std::size_t told = 0;
  while (answered && there && (told < news_.size() || said_)) {
    const std::size_t count = std::min(kTold, news_.size() - told);
    there = interpreter_.run([&](PyObject* module) {
      answered = open_prefetcher(module) && ask(told, count) &&
                 read_story(lines_, story_);
      if (!answered) trouble = taken_error();
    });
    told += count;
    if (!orders_.empty()) {
      ordered = true;
      layer_.order(device_, std::exchange(orders_, {}));
    }
    say(std::exchange(story_, {}));
  }
  news_.clear();
  // Where nothing comes of it, the program's threads are not to pay for waking this one up.
  nap_ = ordered ? foreseeing_.nap_ns : std::min(2 * nap_, kLongestNap * foreseeing_.nap_ns);
  if (!answered) give_up(trouble);
  return answered && there;
}

bool PlannerThread::ask(std::size_t first, std::size_t count) {
  const auto held = static_cast<unsigned long long>(layer_.held(device_));
  const Reference news(list_of(std::span(news_).subspan(first, count),
                               [](const News& each) { return tuple_of(each); }));
  if (!news) return false;
  const Reference answer(PyObject_CallMethod(prefetcher_, "tell", "OK", news.get(), held));
  if (!answer || !read_orders(answer.get())) return false;
  if (!said_) return true;
  const Reference groups(list_of(*std::exchange(said_, std::nullopt), [](const auto& group) {
    return list_of(group, [](const Range& range) { return tuple_of(range); });
  }));
  if (!groups) return false;
  const Reference expected(PyObject_CallMethod(prefetcher_, "expect", "O", groups.get()));
  return expected && read_orders(expected.get());
}

bool PlannerThread::open_prefetcher(PyObject* module) {
  if (prefetcher_ != nullptr) return true;
  const Reference counters(PyMemoryView_FromMemory(
      reinterpret_cast<char*>(foreseeing_.counters),
      static_cast<Py_ssize_t>(foreseeing_.counter_count * sizeof(std::int64_t)), PyBUF_WRITE));
  if (!counters) return false;
  if (foreseeing_.tells && lines_ == nullptr) {
    lines_ = PyList_New(0);
    if (lines_ == nullptr) return false;
  }
  const Reference tell(foreseeing_.tells ? PyObject_GetAttrString(lines_, "append")
                                         : Py_NewRef(Py_None));
  if (!tell) return false;
  prefetcher_ = PyObject_CallMethod(module, "open_prefetcher", "iOOK", device_, counters.get(),
                                    tell.get(),
                                    static_cast<unsigned long long>(foreseeing_.transfer_bytes));
  return prefetcher_ != nullptr;
}

// A list of (kind, pieces).
bool PlannerThread::read_orders(PyObject* answer) {
  if (!PyList_Check(answer)) {
    PyErr_SetString(PyExc_TypeError, "a prefetcher's answer is a list of orders");
    return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(answer); ++i) {
    int kind = 0;
    PyObject* pieces = nullptr;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(answer, i), "iO!", &kind, &PyTuple_Type, &pieces)) {
      return false;
    }
    if (kind != 0 && kind != 1) {
      PyErr_Format(PyExc_ValueError, "no such order: %i", kind);
      return false;
    }
    Order order{static_cast<Order::Kind>(kind), {}};
    order.pieces.resize(static_cast<std::size_t>(PyTuple_GET_SIZE(pieces)));
    for (std::size_t j = 0; j < order.pieces.size(); ++j) {
      PyObject* const piece = PyTuple_GET_ITEM(pieces, static_cast<Py_ssize_t>(j));
      if (!read_range(piece, order.pieces[j])) return false;
    }
    orders_.push_back(std::move(order));
  }
  return true;
}

void PlannerThread::give_up(const std::string& why) const {
  say("pipellm: GPU " + std::to_string(device_) + ": the planner failed (" + why +
      "); from now on nothing is prefetched\n");
}

}  // namespace pipellm
