// Exceptions at a table: they become CUDA's status numbers, and their text the thread's last error.
// One text for all tables of the process: what a lower one says, an upper one passes on.
#pragma once

#include <type_traits>

#include "link/driver_api.h"

namespace pipellm {

// What the calling thread's last error was, in one line; of every table its entry `last_error`.
const char* last_error(void* self = nullptr);

// Notes the exception that is being handled as the thread's last error; its status.
int status_of_exception() noexcept;

// Runs `body`, which returns a status or nothing.
template <typename Body>
int guarded(Body body) {
  try {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      return PIPELLM_OK;
    } else {
      return body();
    }
  } catch (...) {
    return status_of_exception();
  }
}

// Notes why, as the thread's last error; the status.
int refused(PipellmStatus status, const char* why);

// The inverse, for who calls a table from C++: throws what `status`, not OK, and the last error say.
[[noreturn]] void throw_status(int status);
inline void require_ok(int status) {
  if (status != PIPELLM_OK) throw_status(status);
}

}  // namespace pipellm
