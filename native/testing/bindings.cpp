// What only tests may have of pipellm._native: engines and channels by themselves, a clock of their own.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "crypto/aead.h"
#include "crypto/channel.h"
#include "memory/spare_memory.h"
#include "python/bindings.h"

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

}  // namespace

void bind_for_tests(nb::module_& m) {
  bind_aead(m);
  bind_channel(m);
  nb::class_<ManualClock, Clock>(m, "ManualClock")
      .def(nb::init<double, Nanoseconds>(), "slowdown"_a = 1.0, "work"_a = 0)
      .def("advance", &ManualClock::advance, "nanoseconds"_a);
  m.def("memory_is_plentiful", &memory_is_plentiful, "root"_a = "");
}

}  // namespace pipellm
