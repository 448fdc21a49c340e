// AES-GCM from the libcrypto that this module is linked with, where ipsec-mb is missing.
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include <climits>

#include "provider/gcm.h"

namespace pipellm::provider {

namespace {

// A library context of our own with the default provider alone: whatever the process's
// configuration says (it may well say "use pipellm"), it is not asked. Made by the first context,
// not while libcrypto is still reading its configuration; never freed, for contexts may outlive the
// provider.
const EVP_CIPHER* fetch(std::size_t key_bytes) {
  static OSSL_LIB_CTX* const library = [] {
    OSSL_LIB_CTX* made = OSSL_LIB_CTX_new();
    if (made != nullptr && OSSL_PROVIDER_load(made, "default") == nullptr) {
      OSSL_LIB_CTX_free(made);
      made = nullptr;
    }
    return made;
  }();
  if (library == nullptr) return nullptr;
  static const EVP_CIPHER* const ciphers[] = {
      EVP_CIPHER_fetch(library, "AES-128-GCM", nullptr),
      EVP_CIPHER_fetch(library, "AES-192-GCM", nullptr),
      EVP_CIPHER_fetch(library, "AES-256-GCM", nullptr),
  };
  return ciphers[key_bytes / 8 - 2];
}

class LibcryptoGcm final : public Gcm {
 public:
  explicit LibcryptoGcm(EVP_CIPHER_CTX* context) : context_(context) {}
  ~LibcryptoGcm() override { EVP_CIPHER_CTX_free(context_); }  // wipes

  std::unique_ptr<Gcm> clone() const override {
    EVP_CIPHER_CTX* copy = EVP_CIPHER_CTX_new();
    if (copy == nullptr || EVP_CIPHER_CTX_copy(copy, context_) != 1) {
      EVP_CIPHER_CTX_free(copy);
      return nullptr;
    }
    auto cloned = std::make_unique<LibcryptoGcm>(copy);
    cloned->direction_ = direction_;
    return cloned;
  }

  bool set_key(Bytes key) override {
    return EVP_CipherInit_ex(context_, nullptr, nullptr, key.data(), nullptr, -1) == 1;
  }

  bool start(Bytes iv) override {
    const int length = static_cast<int>(iv.size());
    return (length == EVP_CIPHER_CTX_get_iv_length(context_) ||
            EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_SET_IVLEN, length, nullptr) == 1) &&
           EVP_CipherInit_ex(context_, nullptr, nullptr, nullptr, iv.data(), -1) == 1;
  }

  bool authenticate(Bytes additional) override { return feed(additional, nullptr); }

  bool update(Direction direction, Bytes input, std::uint8_t* output) override {
    return turn(direction) && feed(input, output);
  }

  bool make_tag(Block& tag) override {
    int none = 0;
    return turn(Direction::kEncrypt) && EVP_CipherFinal_ex(context_, tag.data(), &none) == 1 &&
           EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_GET_TAG, kBlockBytes, tag.data()) == 1;
  }

  bool check_tag(Bytes tag) override {
    Block expected{}, unused;  // the control call wants a mutable pointer
    std::copy(tag.begin(), tag.end(), expected.begin());
    int none = 0;
    return turn(Direction::kDecrypt) &&
           EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_SET_TAG, static_cast<int>(tag.size()),
                               expected.data()) == 1 &&
           EVP_CipherFinal_ex(context_, unused.data(), &none) == 1;
  }

 private:
  bool turn(Direction direction) {
    if (direction == direction_) return true;
    direction_ = direction;
    const int encrypt = direction == Direction::kEncrypt;
    return EVP_CipherInit_ex(context_, nullptr, nullptr, nullptr, nullptr, encrypt) == 1;
  }

  bool feed(Bytes input, std::uint8_t* output) {
    while (!input.empty()) {
      const auto piece = input.first(std::min<std::size_t>(input.size(), INT_MAX));
      int written = 0;
      if (EVP_CipherUpdate(context_, output, &written, piece.data(),
                           static_cast<int>(piece.size())) != 1) {
        return false;
      }
      input = input.subspan(piece.size());
      if (output != nullptr) output += piece.size();
    }
    return true;
  }

  EVP_CIPHER_CTX* context_;
  Direction direction_ = Direction::kEncrypt;
};

std::unique_ptr<Gcm> make(std::size_t key_bytes) {
  const EVP_CIPHER* cipher = fetch(key_bytes);
  EVP_CIPHER_CTX* context = cipher == nullptr ? nullptr : EVP_CIPHER_CTX_new();
  if (context == nullptr || EVP_EncryptInit_ex(context, cipher, nullptr, nullptr, nullptr) != 1) {
    EVP_CIPHER_CTX_free(context);
    return nullptr;
  }
  return std::make_unique<LibcryptoGcm>(context);
}

}  // namespace

Primitive libcrypto_primitive() {
  return {std::string("libcrypto ") + OpenSSL_version(OPENSSL_VERSION_STRING), make};
}

}  // namespace pipellm::provider
