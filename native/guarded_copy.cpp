#include "guarded_copy.h"

#include <sys/uio.h>
#include <unistd.h>

namespace pipellm {

bool guarded_copy(std::uint8_t* destination, const std::uint8_t* source, std::size_t nbytes) {
  // The local side is the one that the kernel reads as any system call reads its arguments. It stops
  // at what cannot be read, and says how far it came.
  const iovec from{const_cast<std::uint8_t*>(source), nbytes};
  const iovec to{destination, nbytes};
  const ssize_t copied = process_vm_writev(getpid(), &from, 1, &to, 1, 0);
  return copied == static_cast<ssize_t>(nbytes);
}

}  // namespace pipellm
