// The model of time: what a link costs, and clocks.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "emulator/cost_model.h"
#include "python/bindings.h"

namespace pipellm {

void bind_model(nb::module_& m) {
  nb::class_<Curve>(m, "Curve")
      .def("__init__",
           [](Curve* self, const std::vector<std::pair<double, double>>& knots) {
             std::vector<Curve::Knot> converted;
             for (const auto& [bytes, nanoseconds] : knots) converted.push_back({bytes, nanoseconds});
             new (self) Curve(std::move(converted));
           },
           "knots"_a)
      .def("__call__", &Curve::operator(), "nbytes"_a);
  nb::class_<PathCost>(m, "PathCost")
      .def("__init__",
           [](PathCost* self, const Curve& engine, const std::optional<Curve>& call,
              Nanoseconds toll) { new (self) PathCost{engine, call, toll}; },
           "engine"_a, "call"_a.none(), "toll"_a);
  nb::class_<CostModel>(m, "CostModel")
      .def("__init__",
           [](CostModel* self, const PathCost& h2d_pageable, const PathCost& h2d_pinned,
              const PathCost& d2h_pageable, const PathCost& d2h_pinned, const Curve& device_copy,
              Nanoseconds launch, bool duplex) {
             CostModel model;
             model.paths[kH2d] = {h2d_pageable, h2d_pinned};
             model.paths[kD2h] = {d2h_pageable, d2h_pinned};
             model.device_copy = device_copy;
             model.launch = launch;
             model.duplex = duplex;
             new (self) CostModel(std::move(model));
           },
           nb::kw_only(), "h2d_pageable"_a, "h2d_pinned"_a, "d2h_pageable"_a, "d2h_pinned"_a,
           "device_copy"_a, "launch"_a, "duplex"_a);

  nb::class_<Clock>(m, "Clock")
      .def("now", &Clock::now, Unlocked())
      .def("wait_until", &Clock::wait_until, "deadline"_a, Unlocked())
      .def("paused", &Clock::paused, Unlocked())
      .def("spun", &Clock::spun)
      .def_prop_ro("slowdown", &Clock::slowdown);
  nb::class_<RealClock, Clock>(m, "RealClock").def(nb::init<double>(), "slowdown"_a = 1.0);
}

}  // namespace pipellm
