// What EVP_CIPHER_CTX_ctrl and the functions around it ask for, by name.
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/proverr.h>

#include <string_view>

#include "provider/cipher.h"

namespace pipellm::provider {

bool Cipher::get(OSSL_PARAM* parameters) {
  for (; parameters != nullptr && parameters->key != nullptr; ++parameters) {
    if (!get_one(*parameters)) return false;
  }
  return true;
}

bool Cipher::get_one(OSSL_PARAM& parameter) {
  const std::string_view name = parameter.key;
  const auto set_size = [&](std::size_t value) {
    return OSSL_PARAM_set_size_t(&parameter, value) == 1 || fail(PROV_R_FAILED_TO_SET_PARAMETER);
  };
  if (name == OSSL_CIPHER_PARAM_AEAD_TAG) return get_tag(parameter);
  if (name == OSSL_CIPHER_PARAM_IVLEN) return set_size(iv_bytes_);
  if (name == OSSL_CIPHER_PARAM_KEYLEN) return set_size(key_bytes_);
  if (name == OSSL_CIPHER_PARAM_AEAD_TAGLEN) return set_size(tag_bytes_.value_or(kBlockBytes));
  if (name == OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD) return set_size(record_padding_);
  if (name == OSSL_CIPHER_PARAM_IV || name == OSSL_CIPHER_PARAM_UPDATED_IV) {
    return get_iv(parameter);
  }
  if (name == OSSL_CIPHER_PARAM_AEAD_TLS1_GET_IV_GEN) {
    return parameter.data != nullptr && parameter.data_type == OSSL_PARAM_OCTET_STRING &&
           next_iv(static_cast<std::uint8_t*>(parameter.data), parameter.data_size);
  }
  return true;  // a name that came after us
}

bool Cipher::get_iv(OSSL_PARAM& parameter) {
  if (iv_state_ == IvState::kNone) return false;
  if (iv_bytes_ > parameter.data_size) return fail(PROV_R_INVALID_IV_LENGTH);
  return OSSL_PARAM_set_octet_string(&parameter, iv_.data(), iv_bytes_) == 1 ||
         OSSL_PARAM_set_octet_ptr(&parameter, iv_.data(), iv_bytes_) == 1 ||
         fail(PROV_R_FAILED_TO_SET_PARAMETER);
}

bool Cipher::get_tag(OSSL_PARAM& parameter) {
  const std::size_t nbytes = parameter.data_size;
  if (nbytes == 0 || nbytes > buffer_.size() || !encrypting() || !tag_bytes_) {
    return fail(PROV_R_INVALID_TAG);
  }
  return OSSL_PARAM_set_octet_string(&parameter, buffer_.data(), nbytes) == 1 ||
         fail(PROV_R_FAILED_TO_SET_PARAMETER);
}

bool Cipher::set(const OSSL_PARAM* parameters) {
  for (; parameters != nullptr && parameters->key != nullptr; ++parameters) {
    if (!set_one(*parameters)) return false;
  }
  return true;
}

bool Cipher::set_one(const OSSL_PARAM& parameter) {
  const std::string_view name = parameter.key;
  const bool octets = parameter.data_type == OSSL_PARAM_OCTET_STRING;
  if (name == OSSL_CIPHER_PARAM_AEAD_TAG) return set_tag(parameter);
  if (name == OSSL_CIPHER_PARAM_AEAD_IVLEN) return set_iv_length(parameter);
  if (name == OSSL_CIPHER_PARAM_AEAD_TLS1_AAD) {
    if (!octets) return fail(PROV_R_FAILED_TO_GET_PARAMETER);
    return set_record_header(parameter.data, parameter.data_size) || fail(PROV_R_INVALID_AAD);
  }
  if (name == OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED) {
    return (octets && set_fixed_iv(parameter.data, parameter.data_size)) ||
           fail(PROV_R_FAILED_TO_GET_PARAMETER);
  }
  if (name == OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV) {
    return octets && parameter.data != nullptr &&
           set_invocation(static_cast<const std::uint8_t*>(parameter.data), parameter.data_size);
  }
  return true;
}

bool Cipher::set_tag(const OSSL_PARAM& parameter) {
  void* target = buffer_.data();
  std::size_t nbytes = 0;
  if (OSSL_PARAM_get_octet_string(&parameter, &target, buffer_.size(), &nbytes) != 1) {
    return fail(PROV_R_FAILED_TO_GET_PARAMETER);
  }
  if (nbytes == 0 || encrypting()) return fail(PROV_R_INVALID_TAG);
  tag_bytes_ = nbytes;
  return true;
}

bool Cipher::set_iv_length(const OSSL_PARAM& parameter) {
  std::size_t nbytes = 0;
  if (OSSL_PARAM_get_size_t(&parameter, &nbytes) != 1) return fail(PROV_R_FAILED_TO_GET_PARAMETER);
  if (nbytes == 0 || nbytes > kMaxIvBytes) return fail(PROV_R_INVALID_IV_LENGTH);
  if (nbytes != iv_bytes_) {
    iv_bytes_ = nbytes;
    if (iv_state_ != IvState::kNone) iv_state_ = IvState::kUsedUp;  // what was set is no IV now
  }
  return true;
}

const OSSL_PARAM* gettable_parameters() {
  static const OSSL_PARAM list[] = {
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, nullptr),
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, nullptr),
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_TAGLEN, nullptr),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_IV, nullptr, 0),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_UPDATED_IV, nullptr, 0),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, nullptr, 0),
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD, nullptr),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_GET_IV_GEN, nullptr, 0),
      OSSL_PARAM_END,
  };
  return list;
}

const OSSL_PARAM* settable_parameters() {
  static const OSSL_PARAM list[] = {
      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_IVLEN, nullptr),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, nullptr, 0),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, nullptr, 0),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, nullptr, 0),
      OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV, nullptr, 0),
      OSSL_PARAM_END,
  };
  return list;
}

}  // namespace pipellm::provider
