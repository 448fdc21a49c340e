#include "provider/ipsec_mb.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "provider/split.h"
#include "provider/team.h"

namespace pipellm::provider {

std::unique_ptr<Gcm> make_ipsec_mb_gcm(std::size_t key_bytes);

namespace {

// Tests build one module per set of instructions, to run them all on one CPU.
#ifndef PIPELLM_IPSEC_MB_INIT
#define PIPELLM_IPSEC_MB_INIT init_for_this_cpu
void init_for_this_cpu(IMB_MGR* made) { init_mb_mgr_auto(made, nullptr); }
#endif

const IMB_MGR* manager() {
  static const IMB_MGR* const instance = [] {
    IMB_MGR* made = alloc_mb_mgr(0);
    if (made != nullptr) PIPELLM_IPSEC_MB_INIT(made);
    return made;
  }();
  return instance;
}

const char* variant(const IMB_MGR& made) {
  switch (made.used_arch) {
    case IMB_ARCH_SSE: return "SSE";
    case IMB_ARCH_AVX: return "AVX";
    case IMB_ARCH_AVX2: return "AVX2";
    case IMB_ARCH_AVX512: return "AVX-512";
    default: return "no instructions known";
  }
}

// Additional data in pieces and a split update reach into gcm_context_data, whose meaning is not
// documented. So see whether they come to what the library makes of the whole message.
bool self_check(std::size_t key_bytes) {
  const IpsecMb& library = IpsecMb::of(key_bytes);
  std::vector<std::uint8_t> input(1003);
  std::iota(input.begin(), input.end(), std::uint8_t{1});
  const Bytes key(input.data(), key_bytes), iv(input.data() + 40, 12), additional(input.data(), 77);

  alignas(kKeyDataAlignment) gcm_key_data expanded;
  gcm_context_data state;
  library.expand(key.data(), &expanded);
  std::vector<std::uint8_t> expected(input.size()), output(input.size());
  Block expected_tag{}, tag{};
  library.seal(&expanded, &state, expected.data(), input.data(), input.size(), iv.data(),
               additional.data(), additional.size(), expected_tag.data(), expected_tag.size());

  const auto gcm = make_ipsec_mb_gcm(key_bytes);
  const bool in_pieces = gcm->set_key(key) && gcm->start(iv) &&
                         gcm->authenticate(additional.first(5)) &&
                         gcm->authenticate(additional.subspan(5)) &&
                         gcm->update(Direction::kEncrypt, input, output.data()) &&
                         gcm->make_tag(tag) && output == expected && tag == expected_tag;

  const Split split(library, expanded, 128);
  library.init(&expanded, &state, iv.data(), iv.size(), additional.data(), additional.size());
  library.encrypt(&expanded, &state, output.data(), input.data(), 7);
  split.update(
      state, input.size() - 7,
      [&](gcm_context_data& part, std::size_t from, std::size_t nbytes) {
        library.encrypt(&expanded, &part, &output[7 + from], &input[7 + from], nbytes);
      },
      [](std::size_t parts, const auto& work) {
        while (parts > 0) work(--parts);
        return true;
      });
  library.finish_encrypt(&expanded, &state, tag.data(), tag.size());
  return in_pieces && output == expected && tag == expected_tag;
}

}  // namespace

const IpsecMb& IpsecMb::of(std::size_t key_bytes) {
  static const IMB_MGR& m = *manager();
  static const IpsecMb by_length[] = {
      {m.gcm128_pre, m.gcm128_init_var_iv, m.gcm128_enc_update, m.gcm128_dec_update,
       m.gcm128_enc_finalize, m.gcm128_dec_finalize, m.gcm128_enc, m.ghash_pre, m.ghash},
      {m.gcm192_pre, m.gcm192_init_var_iv, m.gcm192_enc_update, m.gcm192_dec_update,
       m.gcm192_enc_finalize, m.gcm192_dec_finalize, m.gcm192_enc, m.ghash_pre, m.ghash},
      {m.gcm256_pre, m.gcm256_init_var_iv, m.gcm256_enc_update, m.gcm256_dec_update,
       m.gcm256_enc_finalize, m.gcm256_dec_finalize, m.gcm256_enc, m.ghash_pre, m.ghash},
  };
  return by_length[key_bytes / 8 - 2];
}

Block get_hash(const gcm_context_data& state) {
  Block hash;
  std::reverse_copy(std::begin(state.aad_hash), std::end(state.aad_hash), hash.begin());
  return hash;
}

void set_hash(gcm_context_data& state, const Block& hash) {
  std::reverse_copy(hash.begin(), hash.end(), std::begin(state.aad_hash));
}

void skip(gcm_context_data& state, std::size_t blocks) {
  // The counter is the last 32 bits of the counter block, and wraps by itself. The library keeps
  // the block the other way round.
  std::uint32_t counter;
  std::memcpy(&counter, state.current_counter, sizeof counter);
  counter += static_cast<std::uint32_t>(blocks);
  std::memcpy(state.current_counter, &counter, sizeof counter);
  state.in_length += blocks * kBlockBytes;
}

std::optional<Primitive> ipsec_mb_primitive() {
  // Without these instructions the library emulates them, an order of magnitude slower.
  constexpr std::uint64_t kNeeded = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
  if (manager() == nullptr || (manager()->features & kNeeded) != kNeeded) return std::nullopt;
  for (const std::size_t key_bytes : {16, 24, 32}) {
    if (!self_check(key_bytes)) return std::nullopt;
  }
  // Made now, when the provider is loaded: a child that was forked while another thread makes them
  // would wait for that thread, which it does not have.
  Team::instance();
  return Primitive{std::string("ipsec-mb ") + imb_get_version_str() + ", " + variant(*manager()),
                   make_ipsec_mb_gcm};
}

}  // namespace pipellm::provider
