#define Py_BUILD_CORE 1
#include "interpreter/cpython.h"

#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>

// From 3.12 on PyThreadState_Swap does this itself.
static void note_state(PyThreadState *state) {
#if PY_VERSION_HEX < 0x030C0000
  PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, state);
#else
  (void)state;
#endif
}

static PyThreadState *swap(PyThreadState *to) {
  PyThreadState *const from = PyThreadState_Swap(to);
  note_state(to);
  return from;
}

PyThreadState *pipellm_new_interpreter(void) {
  PyThreadState *const program = PyThreadState_Get();
  PyConfig *const config = &program->interp->config;  // the new one's is a copy
  const int site_import = config->site_import;
  const int check_enabled = _PyRuntime.gilstate.check_enabled;
  config->site_import = 0;
  PyThreadState *const made = Py_NewInterpreter();
  config->site_import = site_import;
  _PyRuntime.gilstate.check_enabled = check_enabled;
  if (made != NULL) swap(program);
  return made;
}

PyThreadState *pipellm_enter(PyThreadState *state) {
#if PY_VERSION_HEX >= 0x030E0000
  // A thread state knows the bounds of its thread's stack. A new one costs some 30 us.
  return swap(PyThreadState_New(state->interp));
#else
  return swap(state);
#endif
}

void pipellm_leave(PyThreadState *program) {
#if PY_VERSION_HEX >= 0x030E0000
  PyThreadState_Clear(PyThreadState_Get());
  PyThreadState_Delete(swap(program));
#else
  swap(program);
#endif
}

void pipellm_end_interpreter(PyThreadState *state) {
  PyThreadState *const program = swap(state);
  Py_EndInterpreter(state);
  swap(program);
}

void pipellm_forget_interpreter(PyThreadState *state) {
  for (PyInterpreterState **at = &_PyRuntime.interpreters.head; *at != NULL; at = &(*at)->next) {
    if (*at != state->interp) continue;
    *at = state->interp->next;
    return;
  }
}

int pipellm_has_gil(void) {
  PyThreadState *const own = PyGILState_GetThisThreadState();
#if PY_VERSION_HEX >= 0x030D0000
  return own != NULL && own == PyThreadState_GetUnchecked();
#else
  return own != NULL && own == _PyThreadState_UncheckedGet();
#endif
}
