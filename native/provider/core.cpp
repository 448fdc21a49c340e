#include "provider/core.h"

#include <openssl/err.h>

#include <cstdarg>
#include <cstdint>

namespace pipellm::provider {

namespace {

void set_error(OSSL_FUNC_core_vset_error_fn* vset_error, const OSSL_CORE_HANDLE* handle,
               std::uint32_t reason, const char* format, ...) {
  std::va_list none;
  va_start(none, format);
  vset_error(handle, reason, format, none);
  va_end(none);
}

}  // namespace

Core::Core(const OSSL_CORE_HANDLE* handle, const OSSL_DISPATCH* functions) : handle_(handle) {
  for (; functions->function_id != 0; ++functions) {
    switch (functions->function_id) {
      case OSSL_FUNC_CORE_NEW_ERROR:
        new_error_ = OSSL_FUNC_core_new_error(functions);
        break;
      case OSSL_FUNC_CORE_SET_ERROR_DEBUG:
        set_error_debug_ = OSSL_FUNC_core_set_error_debug(functions);
        break;
      case OSSL_FUNC_CORE_VSET_ERROR:
        vset_error_ = OSSL_FUNC_core_vset_error(functions);
        break;
      default:
        break;
    }
  }
}

void Core::raise(int reason, std::source_location where) const {
  if (new_error_ == nullptr || set_error_debug_ == nullptr || vset_error_ == nullptr) return;
  new_error_(handle_);
  set_error_debug_(handle_, "pipellm_provider", static_cast<int>(where.line()),
                   where.function_name());
  // With a library number in it, the core takes the error for that library's own.
  set_error(vset_error_, handle_, static_cast<std::uint32_t>(ERR_PACK(ERR_LIB_PROV, 0, reason)),
            nullptr);
}

}  // namespace pipellm::provider
