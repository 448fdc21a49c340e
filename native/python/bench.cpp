// What measurements ask for.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "bench/replay.h"
#include "python/bindings.h"
#include "python/driver_stack.h"

namespace pipellm {

void bind_bench(nb::module_& m) {
  m.def("engines", [] {
    std::vector<std::string> names;
    for (const Engine engine : engines()) names.emplace_back(engine_name(engine));
    return names;
  });
  m.def("measure_seal",
        [](const std::string& engine, double seconds, std::size_t threads) {
          return measure_seal(engine_named(engine), seconds, threads);
        },
        "engine"_a, "seconds"_a, "threads"_a = 1, Unlocked());
  m.def("measure_memcpy", measure_memcpy, "seconds"_a, Unlocked());
  m.def("measure_fingerprint", measure_fingerprint, "seconds"_a, Unlocked());

  m.def("fill_pattern",
        [](std::uintptr_t address, std::uint64_t nbytes, std::uint64_t tag) {
          fill_pattern(reinterpret_cast<void*>(address), nbytes, tag);
        },
        "address"_a, "nbytes"_a, "tag"_a, Unlocked());
  m.def("holds_pattern",
        [](std::uintptr_t address, std::uint64_t nbytes, std::uint64_t tag) {
          return holds_pattern(reinterpret_cast<const void*>(address), nbytes, tag);
        },
        "address"_a, "nbytes"_a, "tag"_a, Unlocked());
  nb::class_<Replay>(m, "Replay")
      .def("__init__",
           [](Replay* self, DriverStack& driver, bool charged) {
             new (self) Replay(driver.api(), driver.layers(), *driver.emulated().clock(),
                               driver.emulated().options().cost.launch, charged,
                               [&emulated = driver.emulated()] { return emulated.idle(); });
           },
           "driver"_a, nb::kw_only(), "charged"_a, nb::keep_alive<1, 2>(), Unlocked())
      .def("host_memory",
           [](Replay& replay, std::uint64_t nbytes, bool pinned) {
             return reinterpret_cast<std::uintptr_t>(replay.host_memory(nbytes, pinned));
           },
           "nbytes"_a, "pinned"_a)
      .def("device_memory",
           [](Replay& replay, std::uint64_t nbytes) {
             return reinterpret_cast<std::uintptr_t>(replay.device_memory(nbytes));
           },
           "nbytes"_a, Unlocked())
      .def("run",
           [](Replay& replay, Int64Buffer operations) {
             constexpr std::size_t kWidth = sizeof(Replay::Operation) / sizeof(std::int64_t);
             if (operations.size() % kWidth != 0) {
               throw std::invalid_argument("an operation is " + std::to_string(kWidth) + " numbers");
             }
             const nb::gil_scoped_release unlocked;
             return replay.run({reinterpret_cast<const Replay::Operation*>(operations.data()),
                                operations.size() / kWidth});
           },
           "operations"_a);
}

}  // namespace pipellm
