// What every sequence of calls is made of: an init, updates, a final.
#pragma once

#include <openssl/core_names.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

#include "pair.h"

class Steps : protected Pair {
 protected:
  Steps(const Library& theirs, const Library& ours, std::uint64_t seed, std::uint64_t number)
      : Pair("sequence " + std::to_string(number), theirs.aes_gcm(key_bits(number)),
             ours.aes_gcm(key_bits(number))),
        random_(seed * 1'000'003 + number),
        key_bytes_(static_cast<std::size_t>(key_bits(number)) / 8) {
    initialise(true);
  }

  std::size_t below(std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_);
  }
  bool once_in(std::size_t n) { return below(n) == 0; }
  Bytes bytes(std::size_t n) {
    Bytes made(n);
    for (auto& byte : made) byte = static_cast<std::uint8_t>(random_());
    return made;
  }
  std::size_t length() {
    switch (below(40)) {
      case 0: return 0;
      case 1: return 1000 + below(20000);
      case 2: return once_in(40) ? (512 << 10) + below(700 << 10) : 4096;
      case 3: case 4: case 5: case 6: return 16 * below(20);
      default: return 1 + below(80);
    }
  }
  void initialise(bool first) {
    const bool with_cipher = first || once_in(6), with_key = once_in(2), with_iv = once_in(2);
    const int direction = once_in(8) && !first ? -1 : static_cast<int>(below(2));
    const bool turns = direction >= 0 && direction != static_cast<int>(encrypting());
    if (turns && refused_ && !with_iv) return;  // nothing is said of what comes then
    const Bytes key = bytes(key_bytes_), iv = bytes(128);
    std::size_t new_iv_bytes = 1 + below(24);
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_AEAD_IVLEN, &new_iv_bytes),
        OSSL_PARAM_construct_end()};
    const bool with_parameters = once_in(12);
    const Seen seen = both(
        "init" + std::string(with_cipher ? " cipher" : "") + (with_key ? " key" : "") +
            (with_iv ? " iv" : "") + (with_parameters ? " parameters" : ""),
        [&](Side& side, Seen&) {
          return EVP_CipherInit_ex2(side.context.get(), with_cipher ? side.cipher.get() : nullptr,
                                    with_key ? key.data() : nullptr,
                                    with_iv ? iv.data() : nullptr, direction,
                                    with_parameters ? parameters : nullptr);
        });
    // To name a cipher, even the same, empties the context.
    if (with_cipher || (seen.result == 1 && with_iv)) in_use_ = tried_ = refused_ = false;
    if (!with_key || with_cipher || with_iv) return;
    if (in_use_) {
      // Theirs goes on with the new key and no IV at all. Ours must not.
      const Seen refused = ours([](Side& side, Seen& s) {
        std::uint8_t byte = 0;
        return EVP_CipherUpdate(side.context.get(), &byte, &s.written, &byte, 1);
      });
      insist(refused.result == 0, "went on without an IV");
    }
    if (in_use_ || tried_) fresh_iv(-1);
  }

  void fresh_iv(int direction) {
    const Bytes iv = bytes(128);
    both("init iv, direction " + std::to_string(direction), [&](Side& side, Seen&) {
      return EVP_CipherInit_ex(side.context.get(), nullptr, nullptr, nullptr, iv.data(), direction);
    });
    in_use_ = tried_ = refused_ = false;
  }

  Seen update(bool data, Bytes input, bool in_place) {
    const int nbytes = static_cast<int>(input.size());
    const std::string what = (data ? "update " : "additional ") + std::to_string(nbytes);
    input.resize(input.size() + 32, 0xAB);  // nothing may be written there
    const Call call = [&](Side& side, Seen& s) {
      s.memory = in_place || !data ? input : Bytes(input.size(), 0xCD);
      return EVP_CipherUpdate(side.context.get(), data ? s.memory.data() : nullptr, &s.written,
                              in_place ? s.memory.data() : input.data(), nbytes);
    };
    Seen seen = nbytes > 0 ? both_with_one_iv(what, call) : both(what, call);
    if (seen.result == 1 && nbytes > 0) in_use_ = true;
    seen.memory.resize(static_cast<std::size_t>(nbytes));
    return seen;
  }
  void update(bool data) { update(data, bytes(length()), once_in(2)); }

  int finish() {
    if (refused_) return 0;
    tried_ = true;
    const Call call = [](Side& side, Seen& s) {
      s.memory.resize(32);
      return EVP_CipherFinal_ex(side.context.get(), s.memory.data(), &s.written);
    };
    const int result = both_with_one_iv("final", call).result;
    // One whose tag did not match stays, and goes on if one insists; theirs, with another hash.
    refused_ = result != 1;
    if (result == 1) in_use_ = false;
    return result;
  }

  // A whole message there and back, in pieces of any size; now and then with a tag that is wrong.
  void message() {
    const Bytes key = bytes(key_bytes_), iv = bytes(128);
    const auto begin = [&](int direction) {
      in_use_ = tried_ = refused_ = false;
      return both("begin", [&](Side& side, Seen&) {
               return EVP_CipherInit_ex(side.context.get(), nullptr, nullptr, key.data(), iv.data(),
                                        direction);
             }).result == 1;
    };
    const Bytes additional = bytes(once_in(2) ? 0 : length()), plaintext = bytes(length());
    const auto feed = [&](bool data, const Bytes& input) {
      Bytes output;
      for (std::size_t done = 0; done < input.size();) {
        const std::size_t left = input.size() - done;
        const std::size_t piece = once_in(3) ? left : 1 + below(std::min<std::size_t>(left, 99));
        const auto from = input.begin() + static_cast<std::ptrdiff_t>(done);
        const Seen seen =
            update(data, Bytes(from, from + static_cast<std::ptrdiff_t>(piece)), once_in(2));
        output.insert(output.end(), seen.memory.begin(), seen.memory.end());
        done += piece;
      }
      return output;
    };
    if (!begin(1)) return;
    feed(false, additional);
    const Bytes ciphertext = feed(true, plaintext);
    if (finish() != 1) return;
    Bytes tag = control("get tag", EVP_CTRL_AEAD_GET_TAG, 16, {}).memory;
    const bool wrong = once_in(4);
    if (wrong) tag[0] ^= 1;
    if (!begin(0)) return;
    if (once_in(2)) control("set tag", EVP_CTRL_AEAD_SET_TAG, 16, tag);
    feed(false, additional);
    insist(feed(true, ciphertext) == plaintext, "not the plaintext");
    control("set tag", EVP_CTRL_AEAD_SET_TAG, static_cast<int>(4 + below(13)), tag);
    insist((finish() == 1) != wrong, "a tag was misjudged");
  }

  static int key_bits(std::uint64_t number) { return 128 + 64 * static_cast<int>(number % 3); }

  std::mt19937_64 random_;
  const std::size_t key_bytes_;
  // A message is under way that has its IV; one may be; one's tag did not match.
  bool in_use_ = false, tried_ = false, refused_ = false;
};
