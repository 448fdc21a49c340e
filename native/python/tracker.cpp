// What notices writes to memory: whether this kernel can is asked before anything is sealed ahead.
#include <nanobind/stl/unique_ptr.h>

#include <cstdint>

#include "memory/write_tracker.h"
#include "python/bindings.h"

namespace pipellm {

void bind_tracker(nb::module_& m) {
  nb::class_<WriteTracker::Watch>(m, "Watch");
  nb::class_<WriteTracker>(m, "WriteTracker", "Notices writes to memory.")
      .def(nb::init<>())
      .def_prop_ro("works", &WriteTracker::works)
      .def("watch",
           [](WriteTracker& tracker, std::uintptr_t address, std::size_t nbytes) {
             return tracker.watch(reinterpret_cast<const void*>(address), nbytes);
           },
           nb::keep_alive<0, 1>())
      .def("unchanged", &WriteTracker::unchanged)
      .def("expect_writes", [](WriteTracker& tracker, std::uintptr_t address, std::size_t nbytes) {
        tracker.expect_writes(reinterpret_cast<const void*>(address), nbytes);
      });
}

}  // namespace pipellm
