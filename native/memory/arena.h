// Private memory for ciphertexts that nobody has asked for yet. What lies here has not been sent: it
// is copied to the bounce buffer when its turn comes, or wiped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "crypto/aead.h"
#include "crypto/channel.h"

namespace pipellm {

struct SealedMessage {
  std::uint8_t ciphertext[kMessageBytes];
  Tag tag;
};

// Internally locked. Memory is mapped at once and touched when it is used; a child has none of it.
class Arena {
 public:
  explicit Arena(std::size_t messages);  // throws std::bad_alloc
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  SealedMessage* take();  // nullptr when all are in use
  void give_back(SealedMessage* message);
  std::size_t in_use() const;

 private:
  const std::size_t messages_;
  SealedMessage* mapping_;
  mutable std::mutex mutex_;
  std::vector<SealedMessage*> free_;  // the one used last comes first: its pages are there
};

}  // namespace pipellm
