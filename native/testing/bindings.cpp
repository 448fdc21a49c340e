// What only tests may have of pipellm._native: engines and channels by themselves, a clock of their own,
// and the prefetching layer without its planner.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/clock.h"
#include "crypto/aead.h"
#include "crypto/channel.h"
#include "link/status.h"
#include "memory/spare_memory.h"
#include "prefetch/prefetch_driver.h"
#include "python/bindings.h"
#include "python/driver_stack.h"

namespace pipellm {

namespace {

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

nb::tuple sealed(const Bytes& ciphertext, const Tag& tag) {
  return nb::make_tuple(to_bytes(ciphertext), to_bytes(tag));
}

void bind_aead(nb::module_& m) {
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

// Nanoseconds by the wall that each of these copies took its caller, who waits for none of them, and puts
// something else on the stream behind the last, or behind `each`. `within`: as copies within the device, a
// launch for each, that the layer only hands on.
double measure_requests(const PipellmDriver& driver, const std::vector<PipellmDeviceCopy>& copies,
                        bool within, bool each) {
  const auto start = std::chrono::steady_clock::now();
  for (const PipellmDeviceCopy& copy : copies) {
    if (within) {
      require_ok(driver.copy_on_device(driver.self, 0, 0, &copy, 1));
    } else {
      const PipellmCopy request{0, PIPELLM_H2D, copy.destination, copy.source, copy.nbytes,
                                1, 0,           0,                nullptr,     nullptr};
      require_ok(driver.copy(driver.self, &request));
    }
    if (each) require_ok(driver.busy(driver.self, 0, 0, 0));
  }
  if (!each) require_ok(driver.busy(driver.self, 0, 0, 0));
  const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
  return spent.count() / static_cast<double>(copies.size());
}

// The layer as its planner sees it.
struct PrefetchByHand {
  PrefetchByHand(DriverStack& below, const prefetch::Options& options)
      : driver(below.api(), options, never_ahead) {}

  AddressRanges never_ahead;
  prefetch::PrefetchDriver driver;
};

void bind_prefetch(nb::module_& m) {
  using prefetch::News;
  using prefetch::Order;
  using Pieces = std::vector<std::pair<std::uintptr_t, std::uint64_t>>;
  nb::class_<PrefetchByHand>(m, "PrefetchDriver")
      .def("__init__",
           [](PrefetchByHand* self, DriverStack& below, std::uint64_t budget,
              std::uint64_t transfer_bytes, std::size_t threads, std::int64_t quiet_ns) {
             if (transfer_bytes == 0) throw std::invalid_argument("a transfer has bytes");
             new (self) PrefetchByHand(below, {budget, transfer_bytes, threads, quiet_ns});
           },
           "below"_a, nb::kw_only(), "budget"_a, "transfer_bytes"_a, "threads"_a, "quiet_ns"_a,
           nb::keep_alive<1, 2>())
      .def_prop_ro("api_address",
                   [](const PrefetchByHand& layer) {
                     return reinterpret_cast<std::uintptr_t>(&layer.driver.api());
                   })
      .def("transfer",
           [](PrefetchByHand& layer, int device, const Pieces& pieces) {
             Order order{Order::Kind::kTransfer, {}};
             for (const auto& [start, nbytes] : pieces) order.pieces.push_back({start, nbytes});
             layer.driver.order(device, {std::move(order)});
           },
           "device"_a, "pieces"_a, Unlocked())
      .def("evict",
           [](PrefetchByHand& layer, int device, const Pieces& pieces) {
             Order order{Order::Kind::kEvict, {}};
             for (const auto& [start, nbytes] : pieces) order.pieces.push_back({start, nbytes});
             layer.driver.order(device, {std::move(order)});
           },
           "device"_a, "pieces"_a, Unlocked())
      .def("await_news",
           [](PrefetchByHand& layer, int device, std::int64_t nanoseconds) {
             std::vector<News> news;
             {
               const nb::gil_scoped_release unlocked;
               news = layer.driver.await_news(device, 0, nanoseconds);
             }
             nb::list all;
             for (const News& each : news) {
               all.append(nb::make_tuple(static_cast<int>(each.kind), each.host.start,
                                         each.host.nbytes, each.stream, each.found));
             }
             return all;
           },
           "device"_a, "nanoseconds"_a)
      .def("held",
           [](const PrefetchByHand& layer, int device) { return layer.driver.held(device); },
           "device"_a)
      .def("never_ahead",
           [](PrefetchByHand& layer, std::uintptr_t address, std::uint64_t nbytes) {
             const auto* const start = reinterpret_cast<const void*>(address);
             layer.never_ahead.add(start, nbytes);
             layer.driver.stop_reading(start, nbytes);
           },
           "address"_a, "nbytes"_a, Unlocked())
      .def("allow_ahead",
           [](PrefetchByHand& layer, std::uintptr_t address, std::uint64_t nbytes) {
             return layer.never_ahead.remove(reinterpret_cast<const void*>(address), nbytes);
           },
           "address"_a, "nbytes"_a, Unlocked())
      .def("measure_requests",
           [](PrefetchByHand& layer,
              const std::vector<std::tuple<std::uintptr_t, std::uintptr_t, std::uint64_t>>& copies,
              bool within, bool each) {
             std::vector<PipellmDeviceCopy> all;
             for (const auto& [to, from, nbytes] : copies) {
               all.push_back({reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), nbytes});
             }
             const nb::gil_scoped_release unlocked;
             return measure_requests(layer.driver.api(), all, within, each);
           },
           "copies"_a, nb::kw_only(), "within"_a, "each"_a)
      .def("stop", [](PrefetchByHand& layer) { layer.driver.stop_threads(); }, Unlocked());
}

}  // namespace

void bind_for_tests(nb::module_& m) {
  bind_prefetch(m);
  bind_aead(m);
  bind_channel(m);
  nb::class_<ManualClock, Clock>(m, "ManualClock")
      .def(nb::init<double, Nanoseconds>(), "slowdown"_a = 1.0, "work"_a = 0)
      .def("advance", &ManualClock::advance, "nanoseconds"_a);
  m.def("memory_is_plentiful", &memory_is_plentiful, "root"_a = "");
}

}  // namespace pipellm
