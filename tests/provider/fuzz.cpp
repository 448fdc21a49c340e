// Random sequences of EVP calls, on the provider and on OpenSSL's default one: every return value,
// every byte, every error must be the same.
//
//     provider_fuzz MODULE SEQUENCES [SEED]
//
// Sequence N of a seed is always the same. Exit status 0, and one line, if there was no difference.
#include <openssl/core_names.h>

#include <algorithm>
#include <cstdint>

#include "evp.h"
#include "steps.h"

namespace {

class Sequence : private Steps {
 public:
  Sequence(const Library& theirs, const Library& ours, std::uint64_t seed, std::uint64_t number)
      : Steps(theirs, ours, seed, number) {}

  void run() {
    for (std::size_t steps = 1 + below(24); steps > 0; --steps) step();
  }

 private:
  void step() {
    switch (below(20)) {
      case 0: case 1: return initialise(false);
      case 2: case 3: return message();
      case 4: case 5: case 6: return update(true);
      case 7: case 8: return update(false);
      case 9: finish(); return;
      case 10: return set_tag();
      case 11: return get_tag();
      case 12: return set_iv_length();
      case 13: return fixed_iv();
      case 14: return once_in(2) ? next_iv() : invocation();
      case 15: case 16: return record();
      case 17: return duplicate();
      case 18: return parameters();
      default: return rarities();
    }
  }
  void set_tag() {
    control("set tag", EVP_CTRL_AEAD_SET_TAG, static_cast<int>(below(18)), bytes(32));
  }
  void get_tag() { control("get tag", EVP_CTRL_AEAD_GET_TAG, static_cast<int>(below(18)), {}); }

  void set_iv_length() {
    constexpr int kLengths[] = {12, 12, 12, 1, 4, 8, 11, 13, 16, 17, 60, 128, 129, 0, -1};
    const int before = iv_bytes(), asked = kLengths[below(std::size(kLengths))];
    control("set IV length", EVP_CTRL_AEAD_SET_IVLEN, asked, {});
    if (iv_bytes() != before) in_use_ = tried_ = refused_ = false;
  }

  void fixed_iv() {
    // More than an IV: theirs (until 3.5) then writes past its end.
    const auto most = static_cast<std::size_t>(iv_bytes());
    const int nbytes = once_in(3) ? -1 : static_cast<int>(below(most + 1));
    const Bytes given = bytes(128);
    const auto set = [&](int length, const Bytes& iv) {
      return [&iv, length](Side& side, Seen&) {
        Bytes copy = iv;
        return EVP_CIPHER_CTX_ctrl(side.context.get(), EVP_CTRL_GCM_SET_IV_FIXED, length,
                                   copy.data());
      };
    };
    const Seen seen = both("fixed IV " + std::to_string(nbytes), set(nbytes, given));
    if (seen.result != 1) return;
    in_use_ = tried_ = refused_ = false;
    Bytes iv(128);
    const Seen read = ours([&](Side& side, Seen&) {
      return EVP_CIPHER_CTX_get_updated_iv(side.context.get(), iv.data(), iv.size());
    });
    insist(read.result == 1, "no IV after one was set");
    const auto fixed = static_cast<std::ptrdiff_t>(nbytes < 0 ? iv_bytes() : nbytes);
    insist(std::equal(iv.begin(), iv.begin() + fixed, given.begin()), "not the fixed part");
    both("the same IV", set(-1, iv));  // the rest was random where it was to encrypt
  }

  void next_iv() {
    if (iv_bytes() < 8) return;  // theirs then counts in memory before the IV
    if (control("next IV", EVP_CTRL_GCM_IV_GEN, static_cast<int>(below(20)), {}).result == 1) {
      in_use_ = true;
      refused_ = false;
    }
  }

  void invocation() {
    const int nbytes = static_cast<int>(below(static_cast<std::size_t>(iv_bytes()) + 1));
    if (control("invocation", EVP_CTRL_GCM_SET_IV_INV, nbytes, bytes(128)).result == 1) {
      in_use_ = true;
      refused_ = false;
    }
  }

  // TLS 1.2: a header, then the record in place. A record that was sealed is opened again.
  void record() {
    if (iv_bytes() < 8) return;
    if (once_in(2)) fixed_iv();
    Bytes content = bytes(once_in(8) ? 1 + below(30) : 24 + length() % 2000);
    const Bytes header = bytes(11), fixed = bytes(12);
    const bool there_and_back = once_in(3) && content.size() >= 24 && iv_bytes() == 12;
    const auto send = [&] {
      Bytes whole = header;
      whole.push_back(static_cast<std::uint8_t>(content.size() >> 8));
      whole.push_back(static_cast<std::uint8_t>(content.size()));
      if (!encrypting() && once_in(20)) whole[11] = whole[12] = 0;
      // Sealing, the length is without the tag.
      if (encrypting() && content.size() >= 16) {
        whole[11] = static_cast<std::uint8_t>((content.size() - 16) >> 8);
        whole[12] = static_cast<std::uint8_t>(content.size() - 16);
      }
      const int header_bytes = once_in(30) ? 12 : 13;
      control("record header", EVP_CTRL_AEAD_TLS1_AAD, header_bytes, whole);
      const bool in_place = !once_in(20), old = once_in(2);
      const Call call = [&](Side& side, Seen& s) {
        s.memory = content;
        s.memory.resize(content.size() + 32, 0xAB);
        Bytes other = s.memory;
        const std::uint8_t* input = in_place ? s.memory.data() : other.data();
        const int nbytes = static_cast<int>(content.size());
        if (old) return EVP_Cipher(side.context.get(), s.memory.data(), input,
                                   static_cast<unsigned>(nbytes));
        return EVP_CipherUpdate(side.context.get(), s.memory.data(), &s.written, input, nbytes);
      };
      const std::string what = "record " + std::to_string(content.size());
      const Seen seen = both_with_one_iv(what, call);
      tried_ = true;
      if (header_bytes == 13) in_use_ = refused_ = false;  // else it was an ordinary update
      content.assign(seen.memory.begin(),
                     seen.memory.begin() + static_cast<std::ptrdiff_t>(content.size()));
    };
    if (!there_and_back) {
      send();
      return;
    }
    const Bytes key = bytes(key_bytes_);
    for (const int direction : {1, 0}) {
      both("init for a record", [&](Side& side, Seen&) {
        return EVP_CipherInit_ex(side.context.get(), nullptr, nullptr, key.data(), nullptr,
                                 direction);
      });
      control("fixed IV", EVP_CTRL_GCM_SET_IV_FIXED, -1, fixed);
      if (direction == 0 && once_in(4)) content[below(content.size())] ^= 1;
      send();
    }
  }

  void duplicate() {
    both("copy", [](Side& side, Seen&) {
      Context copy = new_context();
      const int result = EVP_CIPHER_CTX_copy(copy.get(), side.context.get());
      if (result == 1) side.context = std::move(copy);
      return result;
    });
  }

  void parameters() {
    const std::size_t room = once_in(6) ? below(12) : 128;
    for (const bool updated : {false, true}) {
      both(updated ? "updated IV" : "original IV", [&](Side& side, Seen& s) {
        s.memory.resize(128);
        return (updated ? EVP_CIPHER_CTX_get_updated_iv : EVP_CIPHER_CTX_get_original_iv)(
            side.context.get(), s.memory.data(), room);
      });
    }
    for (const char* name : {OSSL_CIPHER_PARAM_KEYLEN, OSSL_CIPHER_PARAM_IVLEN,
                             OSSL_CIPHER_PARAM_AEAD_TAGLEN, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD}) {
      both(name, [&](Side& side, Seen& s) {
        std::size_t value = 0;
        OSSL_PARAM asked[] = {OSSL_PARAM_construct_size_t(name, &value),
                              OSSL_PARAM_construct_end()};
        const int result = EVP_CIPHER_CTX_get_params(side.context.get(), asked);
        s.written = static_cast<int>(value);
        return result;
      });
    }
  }

  void rarities() {
    switch (below(6)) {
      case 0:
        both("reset", [](Side& side, Seen&) { return EVP_CIPHER_CTX_reset(side.context.get()); });
        in_use_ = tried_ = refused_ = false;
        return initialise(true);
      case 1:
        both("key length", [&](Side& side, Seen&) {
          return EVP_CIPHER_CTX_set_key_length(side.context.get(), 24);
        });
        return;
      case 2:
        both("padding", [](Side& side, Seen&) {
          return EVP_CIPHER_CTX_set_padding(side.context.get(), 0);
        });
        return;
      case 3: {
        const Bytes input = bytes(1 + below(100));
        const Call call = [&](Side& side, Seen& s) {
          s.memory.resize(128);
          return EVP_Cipher(side.context.get(), s.memory.data(), input.data(),
                            static_cast<unsigned>(input.size()));
        };
        if (both_with_one_iv("EVP_Cipher", call).result > 0) in_use_ = true;
        return;
      }
      case 4:
        both("random key", [&](Side& side, Seen&) {
          Bytes key(key_bytes_);
          return EVP_CIPHER_CTX_rand_key(side.context.get(), key.data()) == 1;
        });
        return;
      default:
        return fresh_iv(once_in(2) ? 1 : 0);
    }
  }
};

// What a program can ask a cipher about itself.
std::string description(const EVP_CIPHER* cipher) {
  std::string text = "flags " + std::to_string(EVP_CIPHER_get_flags(cipher)) + ", type " +
                     std::to_string(EVP_CIPHER_get_type(cipher));
  for (const auto list : {EVP_CIPHER_gettable_params, EVP_CIPHER_gettable_ctx_params,
                          EVP_CIPHER_settable_ctx_params}) {
    text += ";";
    for (const OSSL_PARAM* p = list(cipher); p->key != nullptr; ++p) {
      text += std::string(" ") + p->key + ":" + std::to_string(p->data_type);
    }
  }
  EVP_CIPHER_names_do_all(
      cipher,
      [](const char* name, void* said) {
        *static_cast<std::string*>(said) += std::string("; ") + name;
      },
      &text);
  return text;
}

}  // namespace
int main(int count, char** arguments) {
  require(count >= 3, "usage: provider_fuzz MODULE SEQUENCES [SEED]");
  const Library theirs, ours(arguments[1]);
  for (const int bits : {128, 192, 256}) {
    const std::string expected = description(theirs.aes_gcm(bits).get());
    const std::string said = description(ours.aes_gcm(bits).get());
    require(said == expected, "described as: " + said + "\ninstead of: " + expected);
  }
  const std::uint64_t sequences = std::strtoull(arguments[2], nullptr, 10);
  const std::uint64_t seed = count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 1;
  for (std::uint64_t number = 0; number < sequences; ++number) {
    Sequence(theirs, ours, seed, number).run();
  }
  std::printf("%llu sequences, no difference\n", static_cast<unsigned long long>(sequences));
}
