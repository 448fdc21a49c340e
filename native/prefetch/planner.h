// Who foresees copies for one device, on a thread of its own.
#pragma once

#include <vector>

#include "prefetch/orders.h"

namespace pipellm::prefetch {

// Any thread may call these; none waits for a copy.
class Planner {
 public:
  virtual ~Planner() = default;
  // What the program says that it will copy to the device next, in this order, group by group.
  virtual void expect(std::vector<std::vector<Range>> groups) = 0;
  // Between these nothing is planned. For measurements.
  virtual void freeze() = 0;
  virtual void thaw() = 0;
  virtual bool idle() = 0;  // whether its thread has nothing to do
  virtual void stop() = 0;  // returns when its thread has ended
};

}  // namespace pipellm::prefetch
