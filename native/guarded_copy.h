// Reading memory of the program's that may be gone by now.
//
// What is sealed ahead of a request is memory that the program owns and may unmap at any moment. A
// plain read would then end the process; this one just says no.
#pragma once

#include <cstddef>

namespace pipellm {

// Copies, or returns false if the source cannot be read. Any thread.
bool guarded_copy(void* destination, const void* source, std::size_t nbytes);

// Takes SIGSEGV and SIGBUS (again, if somebody else has taken them since). Faults that are not
// `guarded_copy`'s go to whoever had the signal before.
void guard_copies();

}  // namespace pipellm
