// pipellm._native: the core as Python sees it. Every call that may take long lets go of the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"
#include "bench/measure.h"
#include "bench/replay.h"
#include "crypto/aead.h"
#include "crypto/channel.h"
#include "emulator/context.h"
#include "emulator/cost_model.h"
#include "interpreter/interpreter.h"
#include "interpreter/planned_runtime.h"
#include "link/errors.h"
#include "link/status.h"
#include "memory/spare_memory.h"
#include "python/driver_stack.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace pipellm {

namespace {

using Unlocked = nb::call_guard<nb::gil_scoped_release>;
using Int64Buffer = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = std::vector<std::uint8_t>;

std::span<const std::uint8_t> view(const nb::bytes& data) {
  return {static_cast<const std::uint8_t*>(data.data()), data.size()};
}

template <std::size_t N>
std::array<std::uint8_t, N> exactly(const nb::bytes& data, const char* what) {
  if (data.size() != N) {
    throw std::invalid_argument(std::string(what) + " must be " + std::to_string(N) + " bytes long");
  }
  std::array<std::uint8_t, N> out;
  std::memcpy(out.data(), data.data(), N);
  return out;
}

nb::bytes to_bytes(std::span<const std::uint8_t> data) {
  return nb::bytes(data.data(), data.size());
}

Engine engine_named(const std::string& name) {
  for (const Engine engine : engines()) {
    if (engine_name(engine) == name) return engine;
  }
  throw std::invalid_argument("no engine named '" + name + "' in this build");
}

nb::tuple sealed(const Bytes& ciphertext, const Tag& tag) {
  return nb::make_tuple(to_bytes(ciphertext), to_bytes(tag));
}

void bind_sealing(nb::module_& m) {
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

  nb::class_<Aead>(m, "Aead", "One AES-256-GCM key in one engine; for tests of the engines.")
      .def_static("create",
                  [](const std::string& engine, const nb::bytes& key) {
                    return make_aead(engine_named(engine), exactly<kKeyBytes>(key, "a key"));
                  })
      .def("seal",
           [](Aead& aead, const nb::bytes& iv, const nb::bytes& plaintext) {
             Bytes ciphertext(plaintext.size());
             Tag tag;
             aead.seal(exactly<kIvBytes>(iv, "an IV"), view(plaintext), ciphertext.data(), tag);
             return sealed(ciphertext, tag);
           })
      .def("open", [](Aead& aead, const nb::bytes& iv, const nb::bytes& ciphertext,
                      const nb::bytes& tag) -> std::optional<nb::bytes> {
        Bytes plaintext(ciphertext.size());
        if (!aead.open(exactly<kIvBytes>(iv, "an IV"), view(ciphertext), plaintext.data(),
                       exactly<kTagBytes>(tag, "a tag"))) {
          return std::nullopt;
        }
        return to_bytes(plaintext);
      });
}

void bind_channel(nb::module_& m) {
  nb::exception<CounterExhausted>(m, "CounterExhausted", PyExc_OverflowError);
  nb::class_<Endpoint>(m, "Endpoint")
      .def_prop_ro("last", &Endpoint::last)
      .def("next", &Endpoint::next)
      .def("skip_to", &Endpoint::skip_to)
      .def("iv", [](const Endpoint& endpoint, std::uint32_t number) {
        return to_bytes(endpoint.iv(number));
      })
      .def("number_of", [](const Endpoint& endpoint, const nb::bytes& iv) {
        return endpoint.number_of(exactly<kIvBytes>(iv, "an IV"));
      })
      .def("seal", [](Endpoint& endpoint, std::uint32_t number, const nb::bytes& plaintext) {
        Bytes ciphertext(plaintext.size());
        Tag tag;
        endpoint.seal(number, view(plaintext), ciphertext.data(), tag);
        return sealed(ciphertext, tag);
      })
      .def("open", [](Endpoint& endpoint, std::uint32_t number, const nb::bytes& ciphertext,
                      const nb::bytes& tag) -> std::optional<nb::bytes> {
        Bytes plaintext(ciphertext.size());
        if (!endpoint.open(number, view(ciphertext), plaintext.data(),
                           exactly<kTagBytes>(tag, "a tag"))) {
          return std::nullopt;
        }
        return to_bytes(plaintext);
      });
  nb::class_<SecureChannel>(m, "SecureChannel", "One party's side of a channel; for its tests.")
      .def("__init__",
           [](SecureChannel* self, const std::string& engine, const nb::bytes& master) {
             const auto secret = exactly<kMasterBytes>(master, "a master secret");
             new (self) SecureChannel(engine_named(engine), secret);
           })
      .def_ro("h2d", &SecureChannel::h2d)
      .def_ro("d2h", &SecureChannel::d2h);
}

void bind_costs(nb::module_& m) {
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
}

void bind_clocks(nb::module_& m) {
  nb::class_<Clock>(m, "Clock")
      .def("now", &Clock::now, Unlocked())
      .def("wait_until", &Clock::wait_until, "deadline"_a, Unlocked())
      .def("paused", &Clock::paused, Unlocked())
      .def("spun", &Clock::spun)
      .def_prop_ro("slowdown", &Clock::slowdown);
  nb::class_<RealClock, Clock>(m, "RealClock").def(nb::init<double>(), "slowdown"_a = 1.0);
  nb::class_<ManualClock, Clock>(m, "ManualClock")
      .def(nb::init<double, Nanoseconds>(), "slowdown"_a = 1.0, "work"_a = 0)
      .def("advance", &ManualClock::advance, "nanoseconds"_a);
}

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

void bind_tracker(nb::module_& m) {
  nb::class_<WriteTracker::Watch>(m, "Watch");
  nb::class_<WriteTracker>(m, "WriteTracker", "Notices writes to memory; for its tests.")
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
  m.def("memory_is_plentiful", &memory_is_plentiful, "root"_a = "");
}

// One device of a stack, which outlives it.
struct Device {
  DriverStack* stack;
  int number;

  Pipeline* pipeline() const {
    return stack->pipelined() == nullptr ? nullptr : stack->pipelined()->pipeline_if_used(number);
  }
  Pipeline& needs_pipeline() const {
    if (Pipeline* const found = pipeline()) return *found;
    throw std::logic_error("this driver seals nothing ahead");
  }
};

void bind_context(nb::module_& m) {
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
           },
           "groups"_a, Unlocked())
      .def("close",
           [](const Device& device) {
             if (Pipeline* const pipeline = device.pipeline()) pipeline->runtime().close();
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

void bind_driver(nb::module_& m) {
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

void bind_replay(nb::module_& m) {
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
                               driver.emulated().options().cost.launch, charged);
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

}  // namespace

}  // namespace pipellm

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // the driver lives to the end of the process by design
  pipellm::bind_sealing(m);
  pipellm::bind_channel(m);
  pipellm::bind_costs(m);
  pipellm::bind_clocks(m);
  pipellm::bind_tracker(m);
  pipellm::bind_context(m);
  pipellm::bind_interpreter(m);
  pipellm::bind_driver(m);
  pipellm::bind_replay(m);
}
