// Device work of ours that was put on one of the program's streams, until the device has passed it.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "prefetch/below.h"
#include "prefetch/gates.h"
#include "prefetch/hold.h"
#include "prefetch/orders.h"
#include "prefetch/spare.h"

namespace pipellm::prefetch {

struct Flight {
  explicit Flight(Below& driver) : below(driver), event(driver.take_event()) {}
  ~Flight() {
    if (event != nullptr) below.give_event(event);
  }
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;

  Below& below;
  void* const event;  // recorded behind it
  std::atomic<bool> failed{false};  // it was not launched; a fault says why
  std::vector<Range> device, host;  // what of the program's memory it uses
  std::vector<std::shared_ptr<Place>> places;
  std::vector<std::shared_ptr<Gate>> gates;
  std::vector<Hold> holds;
};

}  // namespace pipellm::prefetch
