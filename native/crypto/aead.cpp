#include "crypto/aead.h"

#include <stdexcept>

namespace pipellm {

std::unique_ptr<Aead> make_openssl_aead(KeyView key);
#ifdef PIPELLM_IPSEC_MB
std::unique_ptr<Aead> make_ipsec_mb_aead(KeyView key);
#endif

std::string_view engine_name(Engine engine) {
  return engine == Engine::kOpenssl ? "openssl" : "ipsec-mb";
}

std::vector<Engine> engines() {
#ifdef PIPELLM_IPSEC_MB
  return {Engine::kOpenssl, Engine::kIpsecMb};
#else
  return {Engine::kOpenssl};
#endif
}

std::unique_ptr<Aead> make_aead(Engine engine, KeyView key) {
  if (engine == Engine::kOpenssl) return make_openssl_aead(key);
#ifdef PIPELLM_IPSEC_MB
  return make_ipsec_mb_aead(key);
#else
  throw std::invalid_argument("pipellm was built without ipsec-mb");
#endif
}

}  // namespace pipellm
