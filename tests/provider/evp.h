// OpenSSL's objects for the test programs, and a library context that has one provider.
#pragma once

#include <dlfcn.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

inline void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}

template <auto kFree>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, Freed<EVP_CIPHER_CTX_free>>;
using FetchedCipher = std::unique_ptr<EVP_CIPHER, Freed<EVP_CIPHER_free>>;

inline Context new_context() { return Context(EVP_CIPHER_CTX_new()); }

// libcrypto, with `module`'s provider if one is given.
class Library {
 public:
  explicit Library(const char* module = nullptr) : context_(OSSL_LIB_CTX_new()) {
    load("default");
    if (module == nullptr) return;
    void* opened = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    require(opened != nullptr, opened == nullptr ? dlerror() : "");
    auto* start = reinterpret_cast<OSSL_provider_init_fn*>(dlsym(opened, "OSSL_provider_init"));
    require(OSSL_PROVIDER_add_builtin(context_, "pipellm", start) == 1, "cannot add the provider");
    load("pipellm");
  }
  ~Library() {
    for (OSSL_PROVIDER* provider : loaded_) OSSL_PROVIDER_unload(provider);
    OSSL_LIB_CTX_free(context_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // From the provider that was loaded last.
  FetchedCipher aes_gcm(int key_bits) const {
    const std::string name = "AES-" + std::to_string(key_bits) + "-GCM";
    FetchedCipher cipher(EVP_CIPHER_fetch(
        context_, name.c_str(), loaded_.size() == 1 ? "provider=default" : "provider=pipellm"));
    require(cipher != nullptr, "no " + name);
    return cipher;
  }

  // A parameter of the provider that was loaded last.
  std::uint64_t number(const char* parameter) const {
    std::uint64_t value = 0;
    OSSL_PARAM asked[] = {OSSL_PARAM_construct_uint64(parameter, &value),
                          OSSL_PARAM_construct_end()};
    require(OSSL_PROVIDER_get_params(loaded_.back(), asked) == 1, "no such parameter");
    return value;
  }

 private:
  void load(const char* name) {
    loaded_.push_back(OSSL_PROVIDER_load(context_, name));
    require(loaded_.back() != nullptr, std::string("cannot load the provider ") + name);
  }

  OSSL_LIB_CTX* context_;
  std::vector<OSSL_PROVIDER*> loaded_;
};
