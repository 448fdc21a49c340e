// AES-GCM from Intel's multi-buffer library: one pass, VAES where the CPU has it.
#include <openssl/crypto.h>

#include <algorithm>

#include "base/secret.h"
#include "provider/gcm.h"
#include "provider/ipsec_mb.h"
#include "provider/split.h"
#include "provider/team.h"

namespace pipellm::provider {

namespace {

constexpr std::size_t kPartBytes = 128 << 10;
constexpr std::size_t kSplitFrom = 512 << 10;  // below, waking a thread up costs what it saves

class IpsecMbGcm final : public Gcm {
 public:
  explicit IpsecMbGcm(const IpsecMb& library) : library_(library) {}
  ~IpsecMbGcm() override { forget(); }
  IpsecMbGcm& operator=(const IpsecMbGcm&) = delete;

  std::unique_ptr<Gcm> clone() const override {
    return std::unique_ptr<Gcm>(new IpsecMbGcm(*this));
  }

  bool set_key(Bytes key) override {
    forget();
    has_key_ = true;
    library_.expand(key.data(), &key_);
    return true;
  }

  bool start(Bytes iv) override {
    library_.init(&key_, &state_, iv.data(), iv.size(), nullptr, 0);
    additional_ = {};
    return true;
  }

  // The library wants all additional data with the IV, at once. But what it makes of it is a GHASH,
  // and that it offers on its own: whole blocks are hashed as they come, the rest waits.
  bool authenticate(Bytes data) override {
    Additional& a = additional_;
    a.bytes += data.size();
    if (a.pending_bytes > 0) {
      const std::size_t fill = std::min(data.size(), kBlockBytes - a.pending_bytes);
      std::copy_n(data.data(), fill, a.pending.data() + a.pending_bytes);
      a.pending_bytes += fill;
      data = data.subspan(fill);
      if (a.pending_bytes < kBlockBytes) return true;
      hash(a.pending);
      a.pending_bytes = 0;
    }
    const std::size_t whole = data.size() / kBlockBytes * kBlockBytes;
    if (whole > 0) hash(data.first(whole));
    a.pending_bytes = data.size() - whole;
    std::copy(data.begin() + static_cast<std::ptrdiff_t>(whole), data.end(), a.pending.begin());
    return true;
  }

  bool update(Direction direction, Bytes input, std::uint8_t* output) override {
    end_additional();
    const aes_gcm_enc_dec_update_t do_part = library_.update(direction);
    if (input.size() >= kSplitFrom && !overlap(input, output)) {
      if (split_ == nullptr) split_ = std::make_unique<Split>(library_, key_, kPartBytes);
      split_->update(
          state_, input.size(),
          [&](gcm_context_data& state, std::size_t from, std::size_t nbytes) {
            do_part(&key_, &state, output + from, input.data() + from, nbytes);
          },
          [](std::size_t parts, const auto& work) { return Team::instance().run(parts, work); });
    } else if (!input.empty()) {
      do_part(&key_, &state_, output, input.data(), input.size());
    }
    return true;
  }

  bool make_tag(Block& tag) override {
    end_additional();
    library_.finish_encrypt(&key_, &state_, tag.data(), tag.size());
    return true;
  }

  bool check_tag(Bytes tag) override {
    end_additional();
    gcm_context_data ending = state_;
    Block computed;
    library_.finish_decrypt(&key_, &ending, computed.data(), computed.size());
    const bool authentic = CRYPTO_memcmp(computed.data(), tag.data(), tag.size()) == 0;
    wipe(&ending, sizeof ending);
    wipe(computed.data(), computed.size());  // a forger who reads it is done
    return authentic;
  }

 private:
  struct Additional {
    Block hash{}, pending{};
    std::size_t pending_bytes = 0;
    std::uint64_t bytes = 0;  // not yet in the message's state; then zero
  };

  IpsecMbGcm(const IpsecMbGcm& other)
      : library_(other.library_),
        has_key_(other.has_key_),
        key_(other.key_),
        state_(other.state_),
        additional_(other.additional_) {}

  static bool overlap(Bytes input, const std::uint8_t* output) {
    const auto from = reinterpret_cast<std::uintptr_t>(input.data());
    const auto to = reinterpret_cast<std::uintptr_t>(output);
    return from != to && (from < to ? to - from : from - to) < input.size();
  }

  void hash(Bytes data) {
    library_.ghash(&key_, data.data(), data.size(), additional_.hash.data(), kBlockBytes);
  }

  void end_additional() {
    Additional& a = additional_;
    if (a.bytes == 0) return;
    if (a.pending_bytes > 0) hash(Bytes(a.pending).first(a.pending_bytes));  // which pads it
    set_hash(state_, a.hash);
    state_.aad_length = a.bytes;
    a = {};
  }

  void forget() {
    if (!has_key_) return;  // a context that lives for one short message pays for every wipe
    wipe(&key_, sizeof key_);
    wipe(&state_, sizeof state_);
    additional_ = {};
    split_ = nullptr;
  }

  const IpsecMb& library_;
  bool has_key_ = false;
  alignas(kKeyDataAlignment) gcm_key_data key_{};
  gcm_context_data state_{};
  Additional additional_;
  std::unique_ptr<Split> split_;  // made by the first large update
};

}  // namespace

std::unique_ptr<Gcm> make_ipsec_mb_gcm(std::size_t key_bytes) {
  return std::make_unique<IpsecMbGcm>(IpsecMb::of(key_bytes));
}

}  // namespace pipellm::provider
