// A layer of the link: a table of a driver over another such table, which it calls as any program
// would. Whichever layer is the uppermost, the program has its table.
#pragma once

#include <cstdint>
#include <type_traits>

#include "link/driver_api.h"

namespace pipellm {

class Layer {
 public:
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // Lasts as long as the layer. Every entry asks the table below, but for those that the layer put in
  // its place before anybody had the table.
  const PipellmDriver& api() const { return api_; }

  // Asks the table below.
  template <typename Result, typename... Parameters>
  Result below(Result (*PipellmDriver::*entry)(void*, Parameters...),
               std::type_identity_t<Parameters>... arguments) const {
    return (below_.*entry)(below_.self, arguments...);
  }

  // Before host memory is freed, or once its owner says that it is not to be read ahead of a copy: when
  // this returns, nobody of this layer reads it.
  virtual void stop_reading(const void*, std::uint64_t) {}
  // Until `thaw` nothing is done ahead or behind. For measurements.
  virtual void freeze() {}
  virtual void thaw() {}
  // Whether no thread of the layer's own is at work. For measurements.
  virtual bool idle() { return true; }
  // Before the process ends: from now on only threads that wait do the layer's work.
  virtual void stop_threads() {}

 protected:
  // `below` outlives the layer.
  explicit Layer(const PipellmDriver& below);

  PipellmDriver api_;

 private:
  template <auto Entry>
  struct Forward;  // an entry that asks the same one below

  const PipellmDriver& below_;
};

}  // namespace pipellm
