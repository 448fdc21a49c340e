// AES-256-GCM through libcrypto's EVP interface, the calls that NVIDIA's user-mode driver makes.
#include <openssl/evp.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>

#include "base/fork.h"
#include "base/secret.h"
#include "crypto/aead.h"

namespace pipellm {

namespace {

using CipherContext = EVP_CIPHER_CTX;

[[noreturn]] void fail(const char* call) {
  throw std::runtime_error(std::string("libcrypto refused ") + call);
}

struct FreeCipher {
  void operator()(EVP_CIPHER* cipher) const { EVP_CIPHER_free(cipher); }
};

// A key schedule lives inside an EVP context, which only one thread may use at a time. Contexts stay
// in slots and are claimed by an atomic flag: no lock that a fork could leave taken, and a child can
// wipe every one of them, also one that was in use at the fork.
//
// libcrypto keeps what is inside a context on the ordinary heap, and to change that is to change it for
// the whole program. So a context has the key only while a message is sealed or opened: it is set for
// each one, and libcrypto wipes it when the context is reset. Between messages the key is in secret
// pages and nowhere else.
class OpensslAead final : public Aead, private ForkAware {
 public:
  explicit OpensslAead(KeyView key) {
    if (cipher_ == nullptr) fail("AES-256-GCM");
    std::copy(key.begin(), key.end(), key_->begin());
  }

  ~OpensslAead() override { free_contexts(); }

  void seal(const Iv& iv, std::span<const std::uint8_t> plaintext, std::uint8_t* ciphertext,
            Tag& tag) override {
    const Claim claim(*this);
    CipherContext* context = claim.context;
    int written = 0;
    const bool ok =
        EVP_EncryptInit_ex(context, cipher_.get(), nullptr, key_->data(), iv.data()) == 1 &&
        EVP_EncryptUpdate(context, ciphertext, &written, plaintext.data(),
                          static_cast<int>(plaintext.size())) == 1 &&
        EVP_EncryptFinal_ex(context, ciphertext + written, &written) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag.data()) == 1;
    if (!ok) fail("to seal");
  }

  bool open(const Iv& iv, std::span<const std::uint8_t> ciphertext, std::uint8_t* plaintext,
            const Tag& tag) override {
    const Claim claim(*this);
    CipherContext* context = claim.context;
    Tag expected = tag;  // the control call wants a mutable pointer
    int written = 0;
    const bool set_up =
        EVP_DecryptInit_ex(context, cipher_.get(), nullptr, key_->data(), iv.data()) == 1 &&
        EVP_DecryptUpdate(context, plaintext, &written, ciphertext.data(),
                          static_cast<int>(ciphertext.size())) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, kTagBytes, expected.data()) == 1;
    const bool authentic =
        set_up && EVP_DecryptFinal_ex(context, plaintext + written, &written) == 1;
    if (!set_up) fail("to open");
    if (!authentic) wipe(plaintext, ciphertext.size());
    return authentic;
  }

 private:
  struct Slot {
    std::atomic<bool> busy{false};
    CipherContext* context = nullptr;  // made at the first claim; the claimant's alone
  };

  // A context for the length of one message.
  struct Claim {
    explicit Claim(OpensslAead& aead) {
      for (auto& candidate : aead.slots_) {
        if (candidate.busy.exchange(true, std::memory_order_acquire)) continue;
        slot = &candidate;
        try {
          if (slot->context == nullptr) slot->context = make_context();
        } catch (...) {
          slot->busy.store(false);
          throw;
        }
        context = slot->context;
        return;
      }
      context = make_context();  // more threads than slots
    }
    ~Claim() {
      if (slot != nullptr) {
        EVP_CIPHER_CTX_reset(context);  // wipes the key
        slot->busy.store(false, std::memory_order_release);
      } else {
        EVP_CIPHER_CTX_free(context);
      }
    }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

    CipherContext* context = nullptr;
    Slot* slot = nullptr;
  };

  static CipherContext* make_context() {
    CipherContext* context = EVP_CIPHER_CTX_new();
    if (context == nullptr) throw std::bad_alloc();
    return context;
  }

  void free_contexts() noexcept {
    for (auto& slot : slots_) {
      EVP_CIPHER_CTX_free(slot.context);
      slot.context = nullptr;
    }
  }

  void after_fork_in_child() noexcept override { free_contexts(); }

  const std::unique_ptr<EVP_CIPHER, FreeCipher> cipher_{
      EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr)};
  Secret<std::array<std::uint8_t, kKeyBytes>> key_;
  std::array<Slot, 64> slots_;
};

}  // namespace

std::unique_ptr<Aead> make_openssl_aead(KeyView key) { return std::make_unique<OpensslAead>(key); }

}  // namespace pipellm
