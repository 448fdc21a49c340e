// A Python object that is owned; nullptr where making it failed, with Python's error set.
#pragma once

#include <Python.h>

namespace pipellm {

class Reference {
 public:
  explicit Reference(PyObject* owned) : object_(owned) {}
  ~Reference() { Py_XDECREF(object_); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;

  PyObject* get() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* const object_;
};

}  // namespace pipellm
