// What CPython has no public call for, or none that leaves the program's interpreter as it was. In C,
// because the internal headers of CPython are not C++.
#pragma once

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

// A second interpreter, without `site` and what that runs (.pth files, sitecustomize). Returns a
// thread state of it, and is back in the caller's own; NULL if it cannot be made. With the GIL.
// PyGILState_Check answers as before: Py_NewInterpreter alone would have it say yes for ever, which
// PyTorch takes for a fault of its caller's.
PyThreadState *pipellm_new_interpreter(void);

// From here on the calling thread, which has the GIL, runs in the interpreter of `state`, and
// PyGILState_* know it. Returns what `pipellm_leave` goes back to. Nobody else may be in there.
PyThreadState *pipellm_enter(PyThreadState *state);
void pipellm_leave(PyThreadState *program);

// Ends the interpreter of `state`. With the GIL, outside of it.
void pipellm_end_interpreter(PyThreadState *state);

// In a forked child, before CPython knows of the fork: forgets the interpreter of `state`, whose
// thread may have been in the middle of something. What it holds stays in memory.
void pipellm_forget_interpreter(PyThreadState *state);

// Whether the calling thread has the GIL.
int pipellm_has_gil(void);

#ifdef __cplusplus
}
#endif
