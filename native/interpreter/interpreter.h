// The interpreter of our own: a second Python interpreter of the process, for the planner alone.
//
// Whatever Python runs in the program's interpreter may run the program's code: signal handlers, the
// finalisers that a garbage collection finds, trace functions, log handlers, a KeyboardInterrupt. In
// here nothing does, because CPython keeps all of these for each interpreter or each thread state.
// So here, and only here, Python may run under a lock of ours.
//
// It runs on the thread that asks: nobody is woken. It shares the program's GIL, which is taken in
// the program's name (whoever waits for it in another interpreter's name is overlooked by the thread
// that has it) and not let go of before the thread is back.
#pragma once

#include <Python.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/fork.h"

namespace pipellm {

// Lets go of the GIL if the calling thread has it: whoever waits for a lock of ours must not hold it,
// since whoever has the lock may need it.
class WithoutGil {
 public:
  WithoutGil();
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* const state_;
};

// Thread-safe; internally locked. Never destroyed: the process's end may come at any moment.
class Interpreter final : private ForkAware {
 public:
  // Where the modules of the interpreter are found, and which one it imports first. Once, early: in
  // the making, nothing of ours is locked, but a program's audit hooks may run. Throws
  // std::runtime_error if it cannot be made. With the GIL.
  static Interpreter& start(std::vector<std::string> path, std::string module);

  // Calls `body` inside, with the module, on this thread: it may use Python as it likes, and must
  // leave no error set, nor take objects out or in. False, and nothing called, once it has ended.
  bool run(const std::function<void(PyObject* module)>& body);

  // Makes it anew in a forked child, where CPython has done away with the parent's. Any thread may
  // call it at any time without a lock of ours; nothing happens where there is one.
  void revive();

  // Before Python ends: waits for who is inside; nobody comes in any more.
  void end();

 private:
  Interpreter(std::vector<std::string> path, std::string module);
  void make();  // throws std::runtime_error
  void after_fork_in_child() noexcept override;

  const std::vector<std::string> path_;
  const std::string module_name_;
  std::atomic<bool> alive_{false};
  std::mutex* mutex_;  // guards all below; a forked child has one of its own
  PyThreadState* state_ = nullptr;
  PyObject* module_ = nullptr;
  bool ended_ = false;
};

// What Python says is wrong, in one line, which is then forgotten. Inside, with an error set.
std::string taken_error();

}  // namespace pipellm
