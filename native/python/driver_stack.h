// A driver as Python opens it: the emulated GPUs, and the layers that were put over their table.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "emulator/driver.h"
#include "link/driver_api.h"
#include "recorder/recorder.h"

namespace pipellm {

// Layers are put on top of what is there, each at most once, before anybody has the table. What is
// asked of all parts goes from the uppermost down.
class DriverStack {
 public:
  // `counters` outlives this object.
  DriverStack(int devices, const DeviceOptions& options, std::shared_ptr<Clock> clock,
              std::int64_t* counters);

  Driver& emulated() { return emulated_; }
  // The uppermost table; the program's.
  const PipellmDriver& api() const;

  // Keeps all that is asked from now on in a file in `directory`. Throws std::runtime_error if there is
  // no room for it.
  void record(const std::string& directory);

  void stop_threads() { emulated_.stop_threads(); }

 private:
  Driver emulated_;
  std::unique_ptr<Recorder> recorder_;
};

}  // namespace pipellm
