#include "interpreter/interpreter.h"

#include <stdexcept>
#include <utility>

#include "interpreter/cpython.h"
#include "interpreter/reference.h"

namespace pipellm {

namespace {

// With the GIL, in the program's interpreter.
class Inside {
 public:
  explicit Inside(PyThreadState* state) : program_(pipellm_enter(state)) {}
  ~Inside() { pipellm_leave(program_); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  PyThreadState* const program_;
};

class WithGil {
 public:
  WithGil() : state_(PyGILState_Ensure()) {}
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  const PyGILState_STATE state_;
};

// nullptr with an error set. The path is ours alone: what a program puts in its own may hide a module
// of the standard library.
PyObject* import(const std::vector<std::string>& path, const std::string& module) {
  const Reference list(PyList_New(0));
  if (!list) return nullptr;
  for (const std::string& place : path) {
    const Reference text(PyUnicode_DecodeFSDefault(place.c_str()));
    if (!text || PyList_Append(list.get(), text.get()) != 0) return nullptr;
  }
  if (PySys_SetObject("path", list.get()) != 0) return nullptr;
  return PyImport_ImportModule(module.c_str());
}

}  // namespace

WithoutGil::WithoutGil() : state_(pipellm_has_gil() ? PyEval_SaveThread() : nullptr) {}

WithoutGil::~WithoutGil() {
  if (state_ != nullptr) PyEval_RestoreThread(state_);
}

std::string taken_error() {
#if PY_VERSION_HEX >= 0x030C0000
  const Reference value(PyErr_GetRaisedException());
#else
  PyObject *type = nullptr, *raised = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &raised, &traceback);
  PyErr_NormalizeException(&type, &raised, &traceback);
  const Reference owned_type(type), value(raised), owned_traceback(traceback);
#endif
  std::string said = value ? Py_TYPE(value.get())->tp_name : "an error";
  const Reference text(value ? PyObject_Str(value.get()) : nullptr);
  const char* const words = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (words != nullptr && *words != '\0') said += std::string(": ") + words;
  PyErr_Clear();
  return said;
}

Interpreter::Interpreter(std::vector<std::string> path, std::string module)
    : path_(std::move(path)), module_name_(std::move(module)), mutex_(new std::mutex) {}

Interpreter& Interpreter::start(std::vector<std::string> path, std::string module) {
  static Interpreter* const only = new Interpreter(std::move(path), std::move(module));
  only->revive();
  return *only;
}

void Interpreter::revive() {
  if (alive_.load(std::memory_order_acquire)) return;
  const WithGil gil;
  make();
}

// No lock while it is made: that takes long, lets other threads have the GIL meanwhile, and tells the
// program's audit hooks, which may do whatever they like. Of two that are made at once one goes.
void Interpreter::make() {
  PyThreadState* const made = pipellm_new_interpreter();
  if (made == nullptr) {
    throw std::runtime_error("Python refuses an interpreter for the planner: " + taken_error());
  }
  PyObject* module = nullptr;
  std::string trouble;
  {
    const Inside inside(made);
    module = import(path_, module_name_);
    if (module == nullptr) trouble = taken_error();
  }
  bool wanted = false;
  if (module != nullptr) {
    const WithoutGil unlocked;
    const std::lock_guard lock(*mutex_);
    wanted = state_ == nullptr && !ended_;
    if (wanted) {
      state_ = made;
      module_ = module;
      alive_.store(true, std::memory_order_release);
    }
  }
  if (!wanted) pipellm_end_interpreter(made);
  if (module == nullptr) {
    throw std::runtime_error("the planner cannot be loaded: " + trouble);
  }
}

bool Interpreter::run(const std::function<void(PyObject* module)>& body) {
  const WithoutGil unlocked;
  const std::lock_guard lock(*mutex_);
  if (state_ == nullptr) return false;
  const WithGil gil;
  const Inside inside(state_);
  body(module_);
  return true;
}

void Interpreter::end() {
  const WithoutGil unlocked;
  const std::lock_guard lock(*mutex_);
  ended_ = true;
  if (state_ == nullptr) return;
  const WithGil gil;
  pipellm_end_interpreter(std::exchange(state_, nullptr));
  module_ = nullptr;
}

// Another thread may have been inside, with the lock and with objects half changed.
void Interpreter::after_fork_in_child() noexcept {
  mutex_ = new std::mutex;
  if (state_ != nullptr) pipellm_forget_interpreter(state_);
  state_ = nullptr;
  module_ = nullptr;
  alive_.store(false);
}

}  // namespace pipellm
