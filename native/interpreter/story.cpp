#include "interpreter/story.h"

#include <unistd.h>

namespace pipellm {

void say(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (wrote < 0) return;
    done += static_cast<std::size_t>(wrote);
  }
}

bool read_story(PyObject* lines, std::string& text) {
  if (lines == nullptr || PyList_GET_SIZE(lines) == 0) return true;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(lines); ++i) {
    const char* const line = PyUnicode_AsUTF8(PyList_GET_ITEM(lines, i));
    if (line == nullptr) return false;
    text += std::string("pipellm: ") + line + "\n";
  }
  return PyList_SetSlice(lines, 0, PyList_GET_SIZE(lines), nullptr) == 0;
}

}  // namespace pipellm
