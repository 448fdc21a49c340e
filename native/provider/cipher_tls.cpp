// IVs that are counted up, and TLS 1.2's records, which carry the counted part in front.
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/proverr.h>

#include <algorithm>

#include "provider/cipher.h"
#include "provider/random.h"

namespace pipellm::provider {

namespace {

constexpr std::size_t kFixedBytes = EVP_GCM_TLS_FIXED_IV_LEN;
constexpr std::size_t kInvocationBytes = EVP_GCM_TLS_EXPLICIT_IV_LEN;
constexpr std::size_t kTagBytes = EVP_GCM_TLS_TAG_LEN;
constexpr std::size_t kHeaderBytes = EVP_AEAD_TLS1_AAD_LEN;
constexpr std::size_t kWholeIv = static_cast<std::size_t>(-1);  // EVP_CTRL_GCM_SET_IV_FIXED with -1

}  // namespace

bool Cipher::set_record_header(const void* data, std::size_t nbytes) {
  if (data == nullptr || nbytes != kHeaderBytes) return false;
  const auto* header = static_cast<const std::uint8_t*>(data);
  std::copy_n(header, kHeaderBytes, buffer_.data());
  has_record_header_ = true;
  // The length there is the record's. What is authenticated is the length of its content.
  std::size_t length = buffer_[kHeaderBytes - 2] * 256u + buffer_[kHeaderBytes - 1];
  const std::size_t around = kInvocationBytes + (encrypting() ? 0 : kTagBytes);
  if (length < around) return false;
  length -= around;
  buffer_[kHeaderBytes - 2] = static_cast<std::uint8_t>(length >> 8);
  buffer_[kHeaderBytes - 1] = static_cast<std::uint8_t>(length);
  record_padding_ = kTagBytes;
  return true;
}

bool Cipher::set_fixed_iv(const void* data, std::size_t nbytes) {
  if (data == nullptr) return false;
  const auto* fixed = static_cast<const std::uint8_t*>(data);
  if (nbytes == kWholeIv) {
    std::copy_n(fixed, iv_bytes_, iv_.data());
  } else {
    if (nbytes < kFixedBytes || nbytes > iv_bytes_ || iv_bytes_ - nbytes < kInvocationBytes) {
      return false;
    }
    std::copy_n(fixed, nbytes, iv_.data());
    // The first invocation is random, so that a key that is used twice does not repeat an IV.
    if (encrypting() && !fill_with_random(iv_.data() + nbytes, iv_bytes_ - nbytes)) return false;
  }
  generates_ivs_ = true;
  iv_state_ = IvState::kBuffered;
  return true;
}

bool Cipher::next_iv(std::uint8_t* output, std::size_t nbytes) {
  if (!generates_ivs_ || !has_key_ || iv_bytes_ < kInvocationBytes) return false;
  if (!start_with_iv()) return false;
  if (nbytes == 0 || nbytes > iv_bytes_) nbytes = iv_bytes_;
  std::copy_n(iv_end() - nbytes, nbytes, output);
  for (std::uint8_t* digit = iv_end(); digit-- != iv_end() - kInvocationBytes;) {
    if (++*digit != 0) break;
  }
  return true;
}

bool Cipher::set_invocation(const std::uint8_t* data, std::size_t nbytes) {
  if (!generates_ivs_ || !has_key_ || encrypting() || nbytes > iv_bytes_) return false;
  std::copy_n(data, nbytes, iv_end() - nbytes);
  return start_with_iv();
}

bool Cipher::run_record(std::uint8_t* output, std::size_t* written, const std::uint8_t* input,
                        std::size_t nbytes) {
  // Whatever comes of it, the header was for this record, and the IV too.
  has_record_header_ = false;
  const auto record = [&] {
    if (!has_key_ || nbytes < kInvocationBytes + kTagBytes) return false;
    if (output == nullptr || output != input) return false;  // records are sealed in place
    if (encrypting() && ++records_ == 0) return fail(PROV_R_TOO_MANY_RECORDS);
    if (!(encrypting() ? next_iv(output, kInvocationBytes)
                       : set_invocation(output, kInvocationBytes))) {
      return false;
    }
    std::uint8_t* content = output + kInvocationBytes;
    const std::size_t length = nbytes - kInvocationBytes - kTagBytes;
    std::uint8_t* tag = content + length;
    const Bytes header = Bytes(buffer_).first(kHeaderBytes);
    tag_bytes_ = kTagBytes;
    if (!gcm_->authenticate(header) || !gcm_->update(direction_, {content, length}, content)) {
      return false;
    }
    if (encrypting()) {
      Block made;
      if (!gcm_->make_tag(made)) return false;
      std::copy(made.begin(), made.end(), tag);
      *written = nbytes;
      return true;
    }
    if (!gcm_->check_tag({tag, kTagBytes})) {
      OPENSSL_cleanse(content, length);
      return false;
    }
    *written = length;
    return true;
  };
  const bool done = record();
  iv_state_ = IvState::kUsedUp;
  return done;
}

}  // namespace pipellm::provider
