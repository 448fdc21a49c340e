#include "prefetch/staging.h"

#include <sys/mman.h>

#include <new>

namespace pipellm::prefetch {

Staging::Staging(std::uint64_t nbytes) : nbytes_(nbytes) {
  void* const memory =
      mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  madvise(memory, nbytes, MADV_HUGEPAGE);  // a wish
  madvise(memory, nbytes, MADV_DONTFORK);
  data_ = static_cast<std::uint8_t*>(memory);
}

Staging::~Staging() { munmap(data_, nbytes_); }

}  // namespace pipellm::prefetch
