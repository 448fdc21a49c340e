#include "provider/gcm.h"

#include <optional>

namespace pipellm::provider {

Primitive libcrypto_primitive();
#ifdef PIPELLM_IPSEC_MB
std::optional<Primitive> ipsec_mb_primitive();  // nothing if it does not do what we need here
#endif

const Primitive& Primitive::chosen() {
  // Never destroyed: at exit, other threads may still be sealing.
  static const auto* const choice = [] {
#ifdef PIPELLM_IPSEC_MB
    if (auto fast = ipsec_mb_primitive()) return new Primitive(*fast);
#endif
    return new Primitive(libcrypto_primitive());
  }();
  return *choice;
}

}  // namespace pipellm::provider
