// Intel's multi-buffer library: its AES-GCM functions for one key length.
#pragma once

#include <intel-ipsec-mb.h>

#include <cstddef>

#include "provider/gcm.h"

namespace pipellm::provider {

// Of a gcm_key_data. Its header asks for it only where LINUX is defined.
inline constexpr std::size_t kKeyDataAlignment = 64;

struct IpsecMb {
  aes_gcm_pre_t expand;  // key -> key data
  aes_gcm_init_var_iv_t init;
  aes_gcm_enc_dec_update_t encrypt, decrypt;
  aes_gcm_enc_dec_finalize_t finish_encrypt, finish_decrypt;
  aes_gcm_enc_dec_t seal;  // a whole message
  // Multiplication in GCM's field, as the library offers it: ghash(prepare(A), B) = A * B.
  aes_gcm_pre_t prepare;
  ghash_t ghash;

  aes_gcm_enc_dec_update_t update(Direction direction) const {
    return direction == Direction::kEncrypt ? encrypt : decrypt;
  }

  // Tables of functions picked for this CPU. They keep no state, so one serves every thread.
  static const IpsecMb& of(std::size_t key_bytes);
};

// What the library keeps in a message's state, which its header does not say; self_check() sees
// whether it does. The hash as GHASH's own bytes, and the place in the data: `skip` moves it on by
// so many blocks, and leaves the hash.
Block get_hash(const gcm_context_data& state);
void set_hash(gcm_context_data& state, const Block& hash);
void skip(gcm_context_data& state, std::size_t blocks);

}  // namespace pipellm::provider
