// One EVP_CIPHER_CTX: what OpenSSL's interface asks of AES-GCM, on top of the primitive.
//
// Programs rely on more than the documentation says, so what happens in every order of calls, and
// which error is raised, is that of OpenSSL 3.0's default provider. tests/provider/fuzz.cpp
// compares the two. Where that one goes on in a state in which GCM protects nothing, or writes
// outside its own memory, this one refuses; docs/provider.md lists the cases.
#pragma once

#include <openssl/core.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <source_location>

#include "provider/core.h"
#include "provider/gcm.h"

namespace pipellm::provider {

// One thread at a time, as EVP has it. Nothing is shared between contexts. Functions return false
// where the EVP call fails; an error has then been raised if the default provider raises one.
class Cipher {
 public:
  // Throws std::bad_alloc. `core` must outlive this.
  Cipher(const Core& core, std::size_t key_bytes);
  Cipher(const Cipher& other);
  Cipher& operator=(const Cipher&) = delete;

  // Null key or IV: none given.
  bool initialise(Direction direction, const std::uint8_t* key, std::size_t key_bytes,
                  const std::uint8_t* iv, std::size_t iv_bytes, const OSSL_PARAM* parameters);

  // EVP's update, final, and EVP_Cipher. A null output makes the input additional data.
  bool update(std::uint8_t* output, std::size_t* written, std::size_t room,
              const std::uint8_t* input, std::size_t nbytes);
  bool finish(std::size_t* written);
  bool process(std::uint8_t* output, std::size_t* written, std::size_t room,
               const std::uint8_t* input, std::size_t nbytes);

  bool get(OSSL_PARAM* parameters);  // not const: to ask for the next IV uses it up
  bool set(const OSSL_PARAM* parameters);

 private:
  enum class IvState {
    kNone,
    kBuffered,  // in iv_, to be used by the next message
    kInUse,     // by the message under way
    kUsedUp,    // a new one is needed
  };

  bool run(std::uint8_t* output, std::size_t* written, const std::uint8_t* input,
           std::size_t nbytes);
  bool start();
  bool start_with_iv();
  bool authenticate(Bytes additional);
  bool transform(Bytes input, std::uint8_t* output);
  bool end();

  // cipher_tls.cpp
  bool set_record_header(const void* data, std::size_t nbytes);
  bool set_fixed_iv(const void* data, std::size_t nbytes);
  bool next_iv(std::uint8_t* output, std::size_t nbytes);
  bool set_invocation(const std::uint8_t* data, std::size_t nbytes);
  bool run_record(std::uint8_t* output, std::size_t* written, const std::uint8_t* input,
                  std::size_t nbytes);

  // cipher_parameters.cpp
  bool get_one(OSSL_PARAM& parameter);
  bool get_iv(OSSL_PARAM& parameter);
  bool get_tag(OSSL_PARAM& parameter);
  bool set_one(const OSSL_PARAM& parameter);
  bool set_tag(const OSSL_PARAM& parameter);
  bool set_iv_length(const OSSL_PARAM& parameter);

  bool fail(int reason, std::source_location where = std::source_location::current()) const {
    core_.raise(reason, where);
    return false;
  }
  bool encrypting() const { return direction_ == Direction::kEncrypt; }
  std::uint8_t* iv_end() { return iv_.data() + iv_bytes_; }

  static constexpr std::size_t kMaxIvBytes = 128;

  const Core& core_;
  const std::size_t key_bytes_;
  const std::unique_ptr<Gcm> gcm_;
  Direction direction_ = Direction::kDecrypt;
  bool has_key_ = false;

  IvState iv_state_ = IvState::kNone;
  bool generates_ivs_ = false;  // a fixed part was set: the rest is a counter
  std::size_t iv_bytes_ = 12;
  std::array<std::uint8_t, kMaxIvBytes> iv_{};

  // Of the message under way.
  std::uint64_t additional_bytes_ = 0, data_bytes_ = 0;
  bool refused_ = false;  // its tag did not match

  // The tag, or the header of a TLS record (as in OpenSSL, where one overwrites the other).
  Block buffer_{};
  std::optional<std::size_t> tag_bytes_;
  bool has_record_header_ = false;
  std::size_t record_padding_ = 0;
  std::uint64_t records_ = 0;  // encrypted with this key
};

// The lists that go with get and set.
const OSSL_PARAM* gettable_parameters();
const OSSL_PARAM* settable_parameters();

}  // namespace pipellm::provider
