#include "crypto/channel.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

namespace pipellm {

namespace {

// HKDF-SHA256 (RFC 5869) with an empty salt; the label keeps the four derived secrets apart.
void derive(std::span<const std::uint8_t, kMasterBytes> master, std::string label,
            std::span<std::uint8_t> out) {
  std::array<std::uint8_t, kMasterBytes> input;
  std::copy(master.begin(), master.end(), input.begin());
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, input.data(), input.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, label.data(), label.size()),
      OSSL_PARAM_construct_end(),
  };
  EVP_KDF* hkdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(hkdf);
  const bool ok =
      context != nullptr && EVP_KDF_derive(context, out.data(), out.size(), parameters) == 1;
  EVP_KDF_CTX_free(context);
  EVP_KDF_free(hkdf);
  wipe(input.data(), input.size());
  if (!ok) throw std::runtime_error("libcrypto has no HKDF to derive the channel's keys with");
}

}  // namespace

CounterExhausted::CounterExhausted(Direction direction)
    : std::runtime_error(std::string("the ") + direction_name(direction) +
                         " message counter is used up; the channel needs a new key") {}

Endpoint::Endpoint(Direction direction, Engine engine,
                   std::span<const std::uint8_t, kMasterBytes> master)
    : direction_(direction) {
  const std::string prefix = direction == kH2d ? "pipellm h2d " : "pipellm d2h ";
  Secret<std::array<std::uint8_t, kKeyBytes>> key;
  derive(master, prefix + "key", *key);
  derive(master, prefix + "iv mask", secret_->mask);
  aead_ = make_aead(engine, *key);
}

std::uint32_t Endpoint::take(std::uint32_t count) {
  if (count > std::numeric_limits<std::uint32_t>::max() - secret_->counter) {
    throw CounterExhausted(direction_);
  }
  const std::uint32_t first = secret_->counter + 1;
  secret_->counter += count;
  return first;
}

Iv Endpoint::iv(std::uint32_t number) const {
  Iv iv;
  for (std::size_t i = 0; i < 4; ++i) iv[i] = static_cast<std::uint8_t>(number >> (8 * i));
  for (std::size_t i = 0; i < 8; ++i) {
    iv[4 + i] = static_cast<std::uint8_t>(secret_->channel_counter >> (8 * i));
  }
  for (std::size_t i = 0; i < kIvBytes; ++i) iv[i] ^= secret_->mask[i];
  return iv;
}

std::uint32_t Endpoint::number_of(const Iv& wire) const {
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    number |= static_cast<std::uint32_t>(wire[i] ^ secret_->mask[i]) << (8 * i);
  }
  return iv(number) == wire ? number : 0;
}

MasterSecret::MasterSecret() {
  if (RAND_bytes(secret_->data(), kMasterBytes) != 1) {
    throw std::runtime_error("the system gives no random bytes for the channel's keys");
  }
}

}  // namespace pipellm
