// What a driver's calls may end in, as C++ throws it. At the table they become statuses (status.h).
#pragma once

#include <stdexcept>
#include <string>

#include "link/driver_api.h"

namespace pipellm {

// An error of the caller's, with the number that CUDA gives it.
class DriverError : public std::runtime_error {
 public:
  DriverError(PipellmStatus status, const std::string& what)
      : std::runtime_error(what), status_(status) {}
  PipellmStatus status() const { return status_; }

 private:
  PipellmStatus status_;
};

// The device is of no use to this process any more.
class ContextLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace pipellm
