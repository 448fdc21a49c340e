// pipellm._native: the core as Python sees it.
#include "python/bindings.h"

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // the driver lives to the end of the process by design
  pipellm::bind_model(m);
  pipellm::bind_tracker(m);
  pipellm::bind_driver(m);
  pipellm::bind_bench(m);
  pipellm::bind_for_tests(m);
}
