// The way back into the libcrypto that loaded the provider.
//
// That one need not be the libcrypto that this module is linked with: a process may hold several
// (the `cryptography` wheel brings its own). So errors go through the functions handed over at
// load, and the module's own libcrypto is used for nothing that has state, except where it is the
// primitive (gcm_libcrypto.cpp).
#pragma once

#include <openssl/core.h>
#include <openssl/core_dispatch.h>

#include <source_location>

namespace pipellm::provider {

// Immutable, so safe from any thread. One per load of the provider; outlives its cipher contexts.
class Core {
 public:
  Core(const OSSL_CORE_HANDLE* handle, const OSSL_DISPATCH* functions);

  // Puts `reason`, one of PROV_R_*, on the calling thread's error queue, as the default provider's
  // own error: programs compare reasons, and must not have to know two providers.
  void raise(int reason, std::source_location where = std::source_location::current()) const;

 private:
  const OSSL_CORE_HANDLE* handle_;
  OSSL_FUNC_core_new_error_fn* new_error_ = nullptr;
  OSSL_FUNC_core_set_error_debug_fn* set_error_debug_ = nullptr;
  OSSL_FUNC_core_vset_error_fn* vset_error_ = nullptr;
};

}  // namespace pipellm::provider
