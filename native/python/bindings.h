// What the files that make pipellm._native share. Every call that may take long lets go of the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "crypto/aead.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace pipellm {

using Unlocked = nb::call_guard<nb::gil_scoped_release>;
using Int64Buffer = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

inline Engine engine_named(const std::string& name) {
  for (const Engine engine : engines()) {
    if (engine_name(engine) == name) return engine;
  }
  throw std::invalid_argument("no engine named '" + name + "' in this build");
}

// Each makes its part of the module.
void bind_model(nb::module_& m);      // model.cpp: costs and clocks
void bind_driver(nb::module_& m);     // driver.cpp: the driver, its devices, the planner's interpreter
void bind_bench(nb::module_& m);      // bench.cpp: speeds, replays, patterns
void bind_tracker(nb::module_& m);    // tracker.cpp: what notices writes
void bind_for_tests(nb::module_& m);  // testing/bindings.cpp: what only tests may have

}  // namespace pipellm
