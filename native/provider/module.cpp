// The provider `pipellm`, as libcrypto sees it: tables of functions.
//
// No exception leaves this file: its callers are C.
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <new>

#include "provider/cipher.h"
#include "provider/core.h"
#include "provider/gcm.h"
#include "provider/served.h"

namespace pipellm::provider {

namespace {

using Function = void (*)();

template <typename Type>
OSSL_DISPATCH entry(int id, Type* function) {
  return {id, reinterpret_cast<Function>(function)};
}

template <std::size_t kKeyBytes>
void* new_context(void* core) try {
  return new Cipher(*static_cast<const Core*>(core), kKeyBytes);
} catch (const std::bad_alloc&) {
  return nullptr;
}

void* duplicate_context(void* context) try {
  return new Cipher(*static_cast<const Cipher*>(context));
} catch (const std::bad_alloc&) {
  return nullptr;
}

void free_context(void* context) { delete static_cast<Cipher*>(context); }

template <Direction kDirection>
int initialise(void* context, const unsigned char* key, std::size_t key_bytes,
               const unsigned char* iv, std::size_t iv_bytes, const OSSL_PARAM parameters[]) {
  return static_cast<Cipher*>(context)->initialise(kDirection, key, key_bytes, iv, iv_bytes,
                                                   parameters);
}

int update(void* context, unsigned char* output, std::size_t* written, std::size_t room,
           const unsigned char* input, std::size_t nbytes) try {
  return static_cast<Cipher*>(context)->update(output, written, room, input, nbytes);
} catch (const std::bad_alloc&) {  // a large message takes some memory
  return 0;
}

int finish(void* context, unsigned char*, std::size_t* written, std::size_t) {
  return static_cast<Cipher*>(context)->finish(written);
}

int process(void* context, unsigned char* output, std::size_t* written, std::size_t room,
            const unsigned char* input, std::size_t nbytes) try {
  return static_cast<Cipher*>(context)->process(output, written, room, input, nbytes);
} catch (const std::bad_alloc&) {
  return 0;
}

int get_context_parameters(void* context, OSSL_PARAM parameters[]) {
  return static_cast<Cipher*>(context)->get(parameters);
}

int set_context_parameters(void* context, const OSSL_PARAM parameters[]) {
  return static_cast<Cipher*>(context)->set(parameters);
}

const OSSL_PARAM* gettable_context_parameters(void*, void*) { return gettable_parameters(); }
const OSSL_PARAM* settable_context_parameters(void*, void*) { return settable_parameters(); }

// What is true of the cipher whatever the context.
template <std::size_t kKeyBytes>
int get_cipher_parameters(OSSL_PARAM parameters[]) {
  const auto set_size = [&](const char* name, std::size_t value) {
    OSSL_PARAM* parameter = OSSL_PARAM_locate(parameters, name);
    return parameter == nullptr || OSSL_PARAM_set_size_t(parameter, value) == 1;
  };
  const auto set_flag = [&](const char* name, int value) {
    OSSL_PARAM* parameter = OSSL_PARAM_locate(parameters, name);
    return parameter == nullptr || OSSL_PARAM_set_int(parameter, value) == 1;
  };
  OSSL_PARAM* mode = OSSL_PARAM_locate(parameters, OSSL_CIPHER_PARAM_MODE);
  return (mode == nullptr || OSSL_PARAM_set_uint(mode, EVP_CIPH_GCM_MODE) == 1) &&
         set_size(OSSL_CIPHER_PARAM_KEYLEN, kKeyBytes) && set_size(OSSL_CIPHER_PARAM_IVLEN, 12) &&
         set_size(OSSL_CIPHER_PARAM_BLOCK_SIZE, 1) && set_flag(OSSL_CIPHER_PARAM_AEAD, 1) &&
         set_flag(OSSL_CIPHER_PARAM_CUSTOM_IV, 1) && set_flag(OSSL_CIPHER_PARAM_CTS, 0) &&
         set_flag(OSSL_CIPHER_PARAM_TLS1_MULTIBLOCK, 0) &&
         set_flag(OSSL_CIPHER_PARAM_HAS_RAND_KEY, 0);
}

const OSSL_PARAM* gettable_cipher_parameters(void*) {
  static const OSSL_PARAM list[] = {
      OSSL_PARAM_uint(OSSL_CIPHER_PARAM_MODE, nullptr),
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, nullptr),
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, nullptr),
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_BLOCK_SIZE, nullptr),
      OSSL_PARAM_int(OSSL_CIPHER_PARAM_AEAD, nullptr),
      OSSL_PARAM_int(OSSL_CIPHER_PARAM_CUSTOM_IV, nullptr),
      OSSL_PARAM_int(OSSL_CIPHER_PARAM_CTS, nullptr),
      OSSL_PARAM_int(OSSL_CIPHER_PARAM_TLS1_MULTIBLOCK, nullptr),
      OSSL_PARAM_int(OSSL_CIPHER_PARAM_HAS_RAND_KEY, nullptr),
      OSSL_PARAM_END,
  };
  return list;
}

template <std::size_t kKeyBytes>
const OSSL_DISPATCH* aes_gcm() {
  static const OSSL_DISPATCH functions[] = {
      entry(OSSL_FUNC_CIPHER_NEWCTX, new_context<kKeyBytes>),
      entry(OSSL_FUNC_CIPHER_FREECTX, free_context),
      entry(OSSL_FUNC_CIPHER_DUPCTX, duplicate_context),
      entry(OSSL_FUNC_CIPHER_ENCRYPT_INIT, initialise<Direction::kEncrypt>),
      entry(OSSL_FUNC_CIPHER_DECRYPT_INIT, initialise<Direction::kDecrypt>),
      entry(OSSL_FUNC_CIPHER_UPDATE, update),
      entry(OSSL_FUNC_CIPHER_FINAL, finish),
      entry(OSSL_FUNC_CIPHER_CIPHER, process),
      entry(OSSL_FUNC_CIPHER_GET_PARAMS, get_cipher_parameters<kKeyBytes>),
      entry(OSSL_FUNC_CIPHER_GET_CTX_PARAMS, get_context_parameters),
      entry(OSSL_FUNC_CIPHER_SET_CTX_PARAMS, set_context_parameters),
      entry(OSSL_FUNC_CIPHER_GETTABLE_PARAMS, gettable_cipher_parameters),
      entry(OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS, gettable_context_parameters),
      entry(OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS, settable_context_parameters),
      {0, nullptr},
  };
  return functions;
}

const OSSL_ALGORITHM* query(void*, int operation, int* no_cache) {
  static const OSSL_ALGORITHM ciphers[] = {
      {"AES-256-GCM:id-aes256-GCM:2.16.840.1.101.3.4.1.46", "provider=pipellm", aes_gcm<32>(),
       nullptr},
      {"AES-192-GCM:id-aes192-GCM:2.16.840.1.101.3.4.1.26", "provider=pipellm", aes_gcm<24>(),
       nullptr},
      {"AES-128-GCM:id-aes128-GCM:2.16.840.1.101.3.4.1.6", "provider=pipellm", aes_gcm<16>(),
       nullptr},
      {nullptr, nullptr, nullptr, nullptr},
  };
  *no_cache = 0;
  return operation == OSSL_OP_CIPHER ? ciphers : nullptr;
}

const OSSL_PARAM* gettable_provider_parameters(void*) {
  static const OSSL_PARAM list[] = {
      OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_NAME, nullptr, 0),
      OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_VERSION, nullptr, 0),
      OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, nullptr, 0),
      OSSL_PARAM_int(OSSL_PROV_PARAM_STATUS, nullptr),
      OSSL_PARAM_uint64(kServedUpdates, nullptr),
      OSSL_PARAM_uint64(kServedBytes, nullptr),
      OSSL_PARAM_END,
  };
  return list;
}

int get_provider_parameters(void*, OSSL_PARAM parameters[]) {
  const auto set_text = [&](const char* name, const char* value) {
    OSSL_PARAM* parameter = OSSL_PARAM_locate(parameters, name);
    return parameter == nullptr || OSSL_PARAM_set_utf8_ptr(parameter, value) == 1;
  };
  const auto set_count = [&](const char* name, const std::atomic<std::uint64_t>& value) {
    OSSL_PARAM* parameter = OSSL_PARAM_locate(parameters, name);
    return parameter == nullptr ||
           OSSL_PARAM_set_uint64(parameter, value.load(std::memory_order_relaxed)) == 1;
  };
  OSSL_PARAM* status = OSSL_PARAM_locate(parameters, OSSL_PROV_PARAM_STATUS);
  return set_text(OSSL_PROV_PARAM_NAME, "PipeLLM AES-GCM") &&
         set_text(OSSL_PROV_PARAM_VERSION, PIPELLM_VERSION) &&
         set_text(OSSL_PROV_PARAM_BUILDINFO, Primitive::chosen().name.c_str()) &&
         set_count(kServedUpdates, served.here().updates) &&
         set_count(kServedBytes, served.here().bytes) &&
         (status == nullptr || OSSL_PARAM_set_int(status, 1) == 1);
}

void teardown(void* core) { delete static_cast<Core*>(core); }

}  // namespace

}  // namespace pipellm::provider

extern "C" int OSSL_provider_init(
    const OSSL_CORE_HANDLE* handle, const OSSL_DISPATCH* from_core, const OSSL_DISPATCH** functions,
    void** context) try {
  using namespace pipellm::provider;
  static const OSSL_DISPATCH provider[] = {
      entry(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
      entry(OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, gettable_provider_parameters),
      entry(OSSL_FUNC_PROVIDER_GET_PARAMS, get_provider_parameters),
      entry(OSSL_FUNC_PROVIDER_TEARDOWN, teardown),
      {0, nullptr},
  };
  Primitive::chosen();  // its self-check belongs to loading, not to the first message
  served.tell_launcher();
  *context = new Core(handle, from_core);
  *functions = provider;
  return 1;
} catch (...) {
  return 0;
}
