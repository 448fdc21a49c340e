// AES-256-GCM from Intel's multi-buffer library: one pass, VAES where the CPU has it.
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

#include <stdexcept>

#include "base/secret.h"
#include "crypto/aead.h"

namespace pipellm {

namespace {

// The manager is a table of functions picked for this CPU. Its GCM calls keep no state in it, so
// one serves every thread.
IMB_MGR* manager() {
  static IMB_MGR* const instance = [] {
    IMB_MGR* made = alloc_mb_mgr(0);
    if (made == nullptr) throw std::bad_alloc();
    init_mb_mgr_auto(made, nullptr);
    return made;
  }();
  return instance;
}

class IpsecMbAead final : public Aead {
 public:
  explicit IpsecMbAead(KeyView key) { manager()->gcm256_pre(key.data(), &*key_); }

  void seal(const Iv& iv, std::span<const std::uint8_t> plaintext, std::uint8_t* ciphertext,
            Tag& tag) override {
    gcm_context_data state;
    manager()->gcm256_enc(&*key_, &state, ciphertext, plaintext.data(), plaintext.size(), iv.data(),
                          nullptr, 0, tag.data(), kTagBytes);
    wipe(&state, sizeof state);
  }

  bool open(const Iv& iv, std::span<const std::uint8_t> ciphertext, std::uint8_t* plaintext,
            const Tag& tag) override {
    gcm_context_data state;
    Tag computed;
    manager()->gcm256_dec(&*key_, &state, plaintext, ciphertext.data(), ciphertext.size(),
                          iv.data(), nullptr, 0, computed.data(), kTagBytes);
    wipe(&state, sizeof state);
    const bool authentic = CRYPTO_memcmp(computed.data(), tag.data(), kTagBytes) == 0;
    if (!authentic) wipe(plaintext, ciphertext.size());
    return authentic;
  }

 private:
  Secret<gcm_key_data> key_;  // wants 64-byte alignment; a page has it
};

}  // namespace

std::unique_ptr<Aead> make_ipsec_mb_aead(KeyView key) { return std::make_unique<IpsecMbAead>(key); }

}  // namespace pipellm
