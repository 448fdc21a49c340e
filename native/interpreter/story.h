// What a planner tells, for standard error; and Python's lists of what C++ has.
#pragma once

#include <Python.h>

#include <string>

namespace pipellm {

// On standard error. Nobody has a lock of ours: whoever reads it may wait for a copy.
void say(const std::string& text);

// Moves the lines of a list to the text, if there is a list. Inside; false with Python's error set.
bool read_story(PyObject* lines, std::string& text);

// A list of what `item` makes of each element; nullptr with Python's error set. Inside.
template <typename Elements, typename Item>
PyObject* list_of(const Elements& elements, Item item) {
  PyObject* const list = PyList_New(static_cast<Py_ssize_t>(elements.size()));
  if (list == nullptr) return nullptr;
  Py_ssize_t index = 0;
  for (const auto& element : elements) {
    PyObject* const made = item(element);
    if (made == nullptr) {
      Py_DECREF(list);
      return nullptr;
    }
    PyList_SET_ITEM(list, index++, made);
  }
  return list;
}

}  // namespace pipellm
