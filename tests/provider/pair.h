// The same context twice: once served by OpenSSL's default provider, once by ours.
#pragma once

#include <openssl/err.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "evp.h"

using Bytes = std::vector<std::uint8_t>;

// What one call did on one side: all of it is compared.
struct Seen {
  int result = 0;
  int written = 0;
  Bytes memory{};
  std::vector<unsigned long> errors{};
  bool operator==(const Seen&) const = default;
};

class Pair {
 protected:
  struct Side {
    FetchedCipher cipher;
    Context context = new_context();
  };
  using Call = std::function<int(Side&, Seen&)>;

  Pair(std::string name, FetchedCipher theirs, FetchedCipher ours)
      : name_(std::move(name)), theirs_{std::move(theirs)}, ours_{std::move(ours)} {}

  // Does `call` with each side, and compares. Returns what both have seen.
  Seen both(const std::string& what, const Call& call) {
    const Seen theirs = with(theirs_, call), ours = with(ours_, call);
    compare(what, theirs, ours);
    return ours;
  }

  // The same for a call that generates a random IV if none was set. Ours then goes first, and
  // theirs is given its IV.
  Seen both_with_one_iv(const std::string& what, const Call& call) {
    Bytes iv(128);
    const auto read_iv = [&](Side& side, Seen&) {
      return EVP_CIPHER_CTX_get_updated_iv(side.context.get(), iv.data(), iv.size());
    };
    if (!encrypting() || with(theirs_, read_iv).result == 1) return both(what, call);
    const Seen ours = with(ours_, call);
    if (with(ours_, read_iv).result == 1) {  // otherwise there was no key, or the IV is too short
      with(theirs_, [&](Side& side, Seen&) {
        return EVP_CipherInit_ex(side.context.get(), nullptr, nullptr, nullptr, iv.data(), -1);
      });
    }
    compare(what, with(theirs_, call), ours);
    return ours;
  }

  // EVP_CIPHER_CTX_ctrl, in memory that has room for whatever comes back.
  Seen control(const std::string& what, int command, int argument, Bytes memory) {
    memory.resize(160);
    return both(what + " " + std::to_string(argument), [&](Side& side, Seen& seen) {
      seen.memory = memory;
      return EVP_CIPHER_CTX_ctrl(side.context.get(), command, argument, seen.memory.data());
    });
  }

  // One side alone, where the two are known to differ.
  Seen ours(const Call& call) { return with(ours_, call); }

  int iv_bytes() const { return EVP_CIPHER_CTX_get_iv_length(ours_.context.get()); }
  bool encrypting() const { return EVP_CIPHER_CTX_is_encrypting(ours_.context.get()) == 1; }

  // Otherwise ends the program, and says what led here.
  void insist(bool condition, const std::string& what) const {
    require(condition, name_ + ":" + history_ + "\n  " + what);
  }

 private:
  static Seen with(Side& side, const Call& call) {
    Seen seen;
    ERR_clear_error();
    seen.result = call(side, seen);
    while (const unsigned long error = ERR_get_error()) seen.errors.push_back(error);
    return seen;
  }

  void compare(const std::string& what, const Seen& theirs, const Seen& ours) {
    history_ += "\n  " + what + " -> " + std::to_string(theirs.result);
    if (theirs == ours) return;
    std::string report = "there, but here " + std::to_string(ours.result);
    if (theirs.written != ours.written) report += "; other length";
    if (theirs.memory != ours.memory) report += "; other bytes";
    for (const auto& [who, seen] : {std::pair{"theirs", &theirs}, std::pair{"ours", &ours}}) {
      for (const unsigned long error : seen->errors) {
        report += std::string("; ") + who + ": " + ERR_error_string(error, nullptr);
      }
    }
    insist(false, report);
  }

  std::string name_, history_;
  Side theirs_, ours_;
};
