// The driver, its devices, and the interpreter of their planners.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"
#include "bench/measure.h"
#include "emulator/context.h"
#include "interpreter/interpreter.h"
#include "interpreter/planned_runtime.h"
#include "interpreter/planner_thread.h"
#include "link/errors.h"
#include "link/status.h"
#include "python/bindings.h"
#include "python/driver_stack.h"

namespace pipellm {

namespace {

// Destroyed on whichever thread lets go of it last, so the reference needs the GIL.
std::shared_ptr<nb::callable> shared_callable(nb::callable function) {
  return {new nb::callable(std::move(function)), [](nb::callable* owned) {
            const nb::gil_scoped_acquire gil;
            delete owned;
          }};
}

// A Python function as a tap. It gets a writable view of the message in the open.
CopyEngine::Tap python_tap(nb::callable function) {
  return [shared = shared_callable(std::move(function))](Direction direction, std::uint32_t number,
                                                         BounceSlot& slot) {
    const nb::gil_scoped_acquire gil;
    const auto length = static_cast<Py_ssize_t>(offsetof(BounceSlot, nbytes));
    const nb::object message = nb::steal(
        PyMemoryView_FromMemory(reinterpret_cast<char*>(&slot), length, PyBUF_WRITE));
    (*shared)(static_cast<int>(direction), number, message);
  };
}

std::vector<std::vector<prefetch::Range>> ranges_of(const std::vector<ExpectedGroup>& groups) {
  std::vector<std::vector<prefetch::Range>> all;
  for (const ExpectedGroup& group : groups) {
    auto& ranges = all.emplace_back();
    for (const auto& [start, nbytes] : group) ranges.push_back({start, nbytes});
  }
  return all;
}

// One device of a stack, which outlives it.
struct Device {
  DriverStack* stack;
  int number;

  Pipeline* pipeline() const {
    return stack->pipelined() == nullptr ? nullptr : stack->pipelined()->pipeline_if_used(number);
  }
  prefetch::Planner* planner() const {
    return stack->prefetching() == nullptr ? nullptr : stack->prefetching()->planner(number);
  }
  Pipeline& needs_pipeline() const {
    if (Pipeline* const found = pipeline()) return *found;
    throw std::logic_error("this driver seals nothing ahead");
  }
};

void bind_devices(nb::module_& m) {
  nb::exception<ContextLost>(m, "ContextLost");
  nb::class_<Device>(m, "Context")
      .def("speculate",
           [](const Device& device, Speculation id, std::uintptr_t address, std::uint64_t nbytes,
              std::uint32_t first, std::uint32_t last, std::uint32_t number) {
             device.needs_pipeline().seal_ahead().speculate(
                 id, reinterpret_cast<const std::uint8_t*>(address), nbytes, first, last, number);
           },
           Unlocked())
      .def("relinquish",
           [](const Device& device, Speculation id) {
             device.needs_pipeline().seal_ahead().relinquish(id);
           },
           Unlocked())
      .def("news",
           [](const Device& device) {
             nb::list all;
             for (const SealAhead::News& news : device.needs_pipeline().seal_ahead().news()) {
               all.append(nb::make_tuple(news.id, news.sealed, static_cast<int>(news.trouble)));
             }
             return all;
           })
      .def("expect",
           [](const Device& device, const std::vector<ExpectedGroup>& groups) {
             if (Pipeline* const pipeline = device.pipeline()) pipeline->runtime().expect(groups);
             if (prefetch::Planner* const planner = device.planner()) {
               planner->expect(ranges_of(groups));
             }
           },
           "groups"_a, Unlocked())
      .def("close",
           [](const Device& device) {
             if (Pipeline* const pipeline = device.pipeline()) pipeline->runtime().close();
             if (prefetch::Planner* const planner = device.planner()) planner->stop();
           },
           Unlocked())
      .def("wait_idle", [](const Device& device) { device.needs_pipeline().wait_idle(); },
           Unlocked())
      .def("go_blind",
           [](const Device& device, bool bytes) { device.needs_pipeline().go_blind(bytes); },
           nb::kw_only(), "bytes"_a = false)
      .def_prop_ro("cpu_times",
                   [](const Device& device) {
                     const Pipeline* const pipeline = device.pipeline();
                     Context& context = device.stack->emulated().context(device.number);
                     return std::make_pair(pipeline == nullptr ? 0 : pipeline->cpu_time(),
                                           context.engine().cpu_time());
                   })
      .def_prop_ro("arena_in_use", [](const Device& device) {
        return device.needs_pipeline().seal_ahead().arena_in_use();
      });
}

void bind_interpreter(nb::module_& m) {
  nb::class_<Interpreter>(m, "Interpreter")
      .def_static("start", &Interpreter::start, "path"_a, "module"_a, nb::rv_policy::reference)
      .def("end", &Interpreter::end);
}

}  // namespace

void bind_driver(nb::module_& m) {
  bind_devices(m);
  bind_interpreter(m);

  nb::tuple names = nb::steal<nb::tuple>(PyTuple_New(kCounterNames.size()));
  for (std::size_t i = 0; i < kCounterNames.size(); ++i) {
    PyTuple_SET_ITEM(names.ptr(), static_cast<Py_ssize_t>(i),
                     PyUnicode_FromString(kCounterNames[i]));
  }
  m.attr("COUNTERS") = names;
  m.attr("SWAP_BYTES") = kSwapBytes;

  nb::class_<DriverStack>(m, "Driver")
      .def("__init__",
           [](DriverStack* self, int devices, std::uint64_t memory_bytes, bool confidential, bool pins,
              const std::string& host_engine, const std::string& device_engine,
              const CostModel& cost, Int64Buffer counters, std::shared_ptr<Clock> clock) {
             if (devices < 1) throw std::invalid_argument("a driver needs a device");
             if (counters.size() < kCounterNames.size()) {
               throw std::invalid_argument("too few counters");
             }
             if (clock == nullptr) clock = std::make_shared<RealClock>();
             const DeviceOptions options{memory_bytes, confidential, pins, engine_named(host_engine),
                                         engine_named(device_engine), cost};
             new (self) DriverStack(devices, options, clock, counters.data());
           },
           nb::kw_only(), "devices"_a, "memory_bytes"_a, "confidential"_a,
           "pins"_a, "host_engine"_a, "device_engine"_a, "cost"_a, "counters"_a,
           "clock"_a = nb::none(), nb::keep_alive<1, 9>())
      .def_prop_ro("api_address",
                   [](DriverStack& driver) {
                     return reinterpret_cast<std::uintptr_t>(&driver.api());
                   })
      .def_prop_ro("devices", [](DriverStack& driver) { return driver.emulated().devices(); })
      .def_prop_ro("in_bad_fork", [](DriverStack& driver) { return driver.emulated().in_bad_fork(); })
      .def_prop_ro("clock", [](DriverStack& driver) { return driver.emulated().clock(); })
      .def("context",
           [](DriverStack& driver, int device) {
             driver.emulated().context(device);  // makes it, or says why not
             return Device{&driver, device};
           },
           "device"_a, nb::keep_alive<0, 1>(), Unlocked())
      .def("context_if_used",
           [](DriverStack& driver, int device) {
             const bool used = driver.emulated().context_if_used(device) != nullptr;
             return used ? std::optional(Device{&driver, device}) : std::nullopt;
           },
           "device"_a, nb::keep_alive<0, 1>())
      .def("plan",
           [](DriverStack& driver, Interpreter& interpreter, bool ahead, std::int64_t budget,
              std::int64_t patience_ns, std::int64_t nop_ns, std::int64_t seal_ns,
              Int64Buffer counters, std::size_t threads, std::size_t arena_messages, bool tells) {
             const Planning planning{ahead,   budget,          patience_ns,     nop_ns,
                                     seal_ns, counters.data(), counters.size(), tells};
             driver.pipeline({.threads = threads, .arena_messages = arena_messages},
                             [=, &interpreter](int device, Pipeline& pipeline) {
                               return std::make_unique<PlannedRuntime>(interpreter, pipeline, device,
                                                                       planning);
                             });
           },
           nb::kw_only(), "interpreter"_a, "ahead"_a, "budget"_a, "patience_ns"_a, "nop_ns"_a,
           "seal_ns"_a, "counters"_a, "threads"_a, "arena_messages"_a, "tells"_a,
           nb::keep_alive<1, 8>())
      .def("prefetch",
           [](DriverStack& driver, Interpreter& interpreter, std::uint64_t budget,
              std::uint64_t transfer_bytes, std::size_t threads, std::int64_t quiet_ns,
              std::int64_t nap_ns, Int64Buffer counters, bool tells) {
             const Foreseeing foreseeing{transfer_bytes, nap_ns, counters.data(), counters.size(),
                                         tells};
             driver.prefetch({budget, transfer_bytes, threads, quiet_ns},
                             [=, &interpreter](int device, prefetch::PrefetchDriver& layer) {
                               return PlannerThread::start(interpreter, layer, device, foreseeing);
                             });
           },
           nb::kw_only(), "interpreter"_a, "budget"_a, "transfer_bytes"_a, "threads"_a, "quiet_ns"_a,
           "nap_ns"_a, "counters"_a, "tells"_a, nb::keep_alive<1, 8>())
      .def("declare_immutable",
           [](DriverStack& driver, std::uintptr_t address, std::uint64_t nbytes) {
             driver.immutable().add(reinterpret_cast<const void*>(address), nbytes);
           },
           "address"_a, "nbytes"_a)
      .def("withdraw_immutable",
           [](DriverStack& driver, std::uintptr_t address, std::uint64_t nbytes) {
             return driver.immutable().remove(reinterpret_cast<const void*>(address), nbytes);
           },
           "address"_a, "nbytes"_a)
      .def("never_ahead",
           [](DriverStack& driver, std::uintptr_t address, std::uint64_t nbytes) {
             driver.never_ahead(reinterpret_cast<const void*>(address), nbytes);
           },
           "address"_a, "nbytes"_a, Unlocked())
      .def("allow_ahead",
           [](DriverStack& driver, std::uintptr_t address, std::uint64_t nbytes) {
             return driver.allow_ahead(reinterpret_cast<const void*>(address), nbytes);
           },
           "address"_a, "nbytes"_a, Unlocked())
      .def("stop_threads", &DriverStack::stop_threads, Unlocked())
      .def("outlive_python",
           [](nb::object self) { self.inc_ref(); },
           "Never destroys the driver: tensors refer to its memory until the very end.")
      .def("measure_copies",
           [](DriverStack& driver, int direction, bool pinned, std::uint64_t nbytes,
              std::size_t repeats) {
             std::vector<std::pair<Nanoseconds, Nanoseconds>> times;
             for (const CopyTime& time :
                  measure_copies(driver.api(), *driver.emulated().clock(),
                                 static_cast<Direction>(direction), pinned, nbytes, repeats)) {
               times.emplace_back(time.emulated, time.wall);
             }
             return times;
           },
           nb::kw_only(), "direction"_a, "pinned"_a, "nbytes"_a, "repeats"_a, Unlocked())
      .def("busy",
           [](DriverStack& driver, int device, Stream stream, double seconds) {
             const PipellmDriver& api = driver.api();
             require_ok(
                 api.busy(api.self, device, stream, static_cast<Nanoseconds>(seconds * 1e9)));
           },
           "device"_a, "stream"_a, "seconds"_a, Unlocked())
      .def("bounce_file_descriptor",
           [](DriverStack& driver, int device, int direction) {
             return driver.emulated().context(device).bounce_file_descriptor(
                 static_cast<Direction>(direction));
           },
           "device"_a, "direction"_a, Unlocked())
      .def("set_tap",
           [](DriverStack& driver, int device, std::optional<nb::callable> tap) {
             CopyEngine::Tap native = tap ? python_tap(std::move(*tap)) : CopyEngine::Tap();
             const nb::gil_scoped_release unlocked;
             driver.emulated().context(device).engine().set_tap(std::move(native));
           },
           "device"_a, "tap"_a.none())
      .def("tamper",
           [](DriverStack& driver, int direction, std::uint32_t number) {
             driver.emulated().tamper(static_cast<Direction>(direction), number);
           },
           "direction"_a, "number"_a, Unlocked())
      .def("record", &DriverStack::record, "directory"_a)
      .def("skip_to",
           [](DriverStack& driver, int device, int direction, std::uint32_t last) {
             driver.emulated().context(device).skip_to(static_cast<Direction>(direction), last);
           },
           "device"_a, "direction"_a, "last"_a, Unlocked());
}

}  // namespace pipellm
