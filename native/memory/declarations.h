// What the owners of host memory have said of it, for all devices of the process.
#pragma once

#include "memory/address_ranges.h"

namespace pipellm {

// Each part locks itself.
struct Declarations {
  AddressRanges immutable;    // it stays as it is: it needs no watching
  AddressRanges never_ahead;  // not to be read before a copy of it is asked for
};

}  // namespace pipellm
