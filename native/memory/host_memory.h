// What is known of this process's host memory, for all of its devices.
#pragma once

#include "memory/address_ranges.h"
#include "memory/pinned_memory.h"

namespace pipellm {

// Each part locks itself.
struct HostMemory {
  PinnedMemory pinned;
  AddressRanges immutable;    // its owner has promised that it stays as it is: it needs no watching
  AddressRanges never_ahead;  // not to be read before a copy of it is asked for
};

}  // namespace pipellm
