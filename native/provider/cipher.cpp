#include "provider/cipher.h"

#include <openssl/proverr.h>

#include <algorithm>
#include <new>

#include "provider/random.h"
#include "provider/served.h"

namespace pipellm::provider {

namespace {

// GCM's own limits.
constexpr std::uint64_t kMaxAdditionalBytes = std::uint64_t{1} << 61;
constexpr std::uint64_t kMaxDataBytes = (std::uint64_t{1} << 36) - 32;

// A generated IV is random, and random ones shorter than this collide too early.
constexpr std::size_t kMinGeneratedIvBytes = 12;

std::unique_ptr<Gcm> checked(std::unique_ptr<Gcm> gcm) {
  if (gcm == nullptr) throw std::bad_alloc();
  return gcm;
}

}  // namespace

Cipher::Cipher(const Core& core, std::size_t key_bytes)
    : core_(core), key_bytes_(key_bytes), gcm_(checked(Primitive::chosen().make(key_bytes))) {}

Cipher::Cipher(const Cipher& other)
    : core_(other.core_),
      key_bytes_(other.key_bytes_),
      gcm_(checked(other.gcm_->clone())),
      direction_(other.direction_),
      has_key_(other.has_key_),
      iv_state_(other.iv_state_),
      generates_ivs_(other.generates_ivs_),
      iv_bytes_(other.iv_bytes_),
      iv_(other.iv_),
      additional_bytes_(other.additional_bytes_),
      data_bytes_(other.data_bytes_),
      refused_(other.refused_),
      buffer_(other.buffer_),
      tag_bytes_(other.tag_bytes_),
      has_record_header_(other.has_record_header_),
      record_padding_(other.record_padding_),
      records_(other.records_) {}

bool Cipher::initialise(Direction direction, const std::uint8_t* key, std::size_t key_bytes,
                        const std::uint8_t* iv, std::size_t iv_bytes,
                        const OSSL_PARAM* parameters) {
  direction_ = direction;
  if (iv != nullptr) {
    if (iv_bytes == 0 || iv_bytes > kMaxIvBytes) return fail(PROV_R_INVALID_IV_LENGTH);
    iv_bytes_ = iv_bytes;
    std::copy_n(iv, iv_bytes, iv_.data());
    iv_state_ = IvState::kBuffered;
  }
  if (key != nullptr) {
    if (key_bytes != key_bytes_) return fail(PROV_R_INVALID_KEY_LENGTH);
    if (!gcm_->set_key({key, key_bytes})) return false;
    has_key_ = true;
    records_ = 0;
    // The message under way was the old key's. (The default provider would go on with this one and
    // no IV at all, and so give its hash away.)
    if (iv_state_ == IvState::kInUse) iv_state_ = IvState::kUsedUp;
  }
  return parameters == nullptr || set(parameters);
}

bool Cipher::update(std::uint8_t* output, std::size_t* written, std::size_t room,
                    const std::uint8_t* input, std::size_t nbytes) {
  if (nbytes == 0) {
    *written = 0;
    return true;
  }
  if (room < nbytes) return fail(PROV_R_OUTPUT_BUFFER_TOO_SMALL);
  return run(output, written, input, nbytes) || fail(PROV_R_CIPHER_OPERATION_FAILED);
}

bool Cipher::finish(std::size_t* written) {
  if (!run(nullptr, written, nullptr, 0)) return false;
  *written = 0;
  return true;
}

bool Cipher::process(std::uint8_t* output, std::size_t* written, std::size_t room,
                     const std::uint8_t* input, std::size_t nbytes) {
  if (room < nbytes) return fail(PROV_R_OUTPUT_BUFFER_TOO_SMALL);
  if (!run(output, written, input, nbytes)) return false;
  *written = nbytes;
  return true;
}

bool Cipher::run(std::uint8_t* output, std::size_t* written, const std::uint8_t* input,
                 std::size_t nbytes) {
  *written = 0;
  if (has_record_header_) return run_record(output, written, input, nbytes);
  if (!start()) return false;
  if (input == nullptr) return end();
  const bool done = output == nullptr ? authenticate({input, nbytes})
                                      : transform({input, nbytes}, output);
  if (done) *written = nbytes;
  return done;
}

bool Cipher::start() {
  if (!has_key_ || iv_state_ == IvState::kUsedUp) return false;
  if (iv_state_ == IvState::kNone) {
    if (!encrypting() || iv_bytes_ < kMinGeneratedIvBytes ||
        !fill_with_random(iv_.data(), iv_bytes_)) {
      return false;
    }
    iv_state_ = IvState::kBuffered;
  }
  return iv_state_ == IvState::kInUse || start_with_iv();
}

bool Cipher::start_with_iv() {
  if (!gcm_->start({iv_.data(), iv_bytes_})) return false;
  iv_state_ = IvState::kInUse;
  additional_bytes_ = data_bytes_ = 0;
  refused_ = false;
  return true;
}

bool Cipher::authenticate(Bytes additional) {
  if (data_bytes_ > 0 || additional.size() > kMaxAdditionalBytes - additional_bytes_) return false;
  additional_bytes_ += additional.size();
  return gcm_->authenticate(additional);
}

bool Cipher::transform(Bytes input, std::uint8_t* output) {
  if (input.size() > kMaxDataBytes - data_bytes_) return false;
  data_bytes_ += input.size();
  served.count(input.size());
  return gcm_->update(direction_, input, output);
}

bool Cipher::end() {
  if (refused_) return false;
  if (encrypting()) {
    if (!gcm_->make_tag(buffer_)) return false;
    tag_bytes_ = buffer_.size();
  } else {
    if (!tag_bytes_) return false;
    if (!gcm_->check_tag(Bytes(buffer_).first(*tag_bytes_))) {
      refused_ = true;
      return false;
    }
  }
  iv_state_ = IvState::kUsedUp;  // one IV, one message
  return true;
}

}  // namespace pipellm::provider
