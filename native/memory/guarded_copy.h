// Reading memory of the program's that may be gone by now.
//
// What is sealed ahead of a request is memory that the program owns and may unmap at any moment, or
// whose file it may truncate. A plain read would then end the process; this one just says no. The kernel
// reads for us (process_vm_writev, to this same process), so that no signal is involved: the program's
// handlers of SIGSEGV and SIGBUS, faulthandler's among them, stay what they are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pipellm {

// Copies, or returns false if the source cannot be read. Any thread. As fast as memcpy where the
// destination lies in huge pages, half as fast elsewhere.
bool guarded_copy(std::uint8_t* destination, const std::uint8_t* source, std::size_t nbytes);

}  // namespace pipellm
