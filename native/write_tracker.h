// Noticing that memory was written since it was sealed.
//
// userfaultfd in its asynchronous write-protect mode (Linux 6.7): the first write to a protected page
// is let through by the kernel, which only notes it; a PAGEMAP_SCAN tells afterwards. Unlike mprotect
// and a signal handler this also notices what system calls write, and breaks no program.
//
// The question is asked strictly: a range is clean only if every one of its pages is still protected
// and unwritten. Memory that was unmapped, remapped or given back to the kernel fails it.
//
// What cannot be noticed is refused beforehand (`arm` returns false): memory that is shared or backed
// by a file may be written through another mapping. Nothing here closes the race with a thread that
// writes while it is sealed: like any source of a copy, a buffer must be quiet from the request on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fork.h"

namespace pipellm {

// Thread-safe without a lock: it only makes system calls.
class WriteTracker final : private ForkAware {
 public:
  WriteTracker();
  ~WriteTracker() override;

  // Whether this kernel does what it says: found out by trying, at construction.
  bool works() const { return works_; }

  // From now on writes to the pages of this range are noticed. False if they could not be.
  bool arm(const void* start, std::size_t nbytes);

  // Whether nothing has touched the range's pages since `arm`. Also false in doubt.
  bool clean(const void* start, std::size_t nbytes) const;

 private:
  bool protects_a_page();
  bool only_private_memory(std::uintptr_t start, std::uintptr_t end) const;
  void after_fork_in_child() noexcept override;

  // Descriptors of this process's own memory map; a child's memory is another.
  int userfault_ = -1;
  int pagemap_ = -1;
  int maps_ = -1;
  bool works_ = false;
};

}  // namespace pipellm
