#include "memory/guarded_copy.h"

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pipellm {

bool guarded_copy(std::uint8_t* destination, const std::uint8_t* source, std::size_t nbytes) {
  // The local side is the one that the kernel reads as any system call reads its arguments. It stops
  // at what cannot be read, and says how far it came.
  const iovec from{const_cast<std::uint8_t*>(source), nbytes};
  const iovec to{destination, nbytes};
  // The system call itself: what sanitizers put in the function's place takes a source that is gone
  // for a mistake.
  const long copied = syscall(SYS_process_vm_writev, getpid(), &from, 1ul, &to, 1ul, 0ul);
  return copied == static_cast<long>(nbytes);
}

}  // namespace pipellm
