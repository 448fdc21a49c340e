// Keystream of the messages that one key is expected to encrypt or decrypt next, made in idle time.
#pragma once

#include <intel-ipsec-mb.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "ipsec_mb.h"
#include "iv_schedule.h"

namespace pipellm::provider {

// For one key, of which it holds a copy. One thread at a time, but for the one that makes the
// keystream: it serves all contexts of the process, and runs when no other thread wants the CPU, so
// nobody here ever waits for it.
//
// A keystream used for two messages gives both away: each is handed out once. A used one tells
// nothing that the key does not tell as well, so it may stay until the next one overwrites it, and
// is wiped with the key. All of it is in pages that a forked child finds empty: there nothing is
// ready, and nothing ever will be.
class KeystreamAhead {
 public:
  static constexpr std::size_t kMaxBytes = 1 << 20;  // of one message: what the driver seals at once

  static void prepare();  // when the provider is loaded: makes what all of them share

  // Throws std::bad_alloc.
  KeystreamAhead(const IpsecMb& library, const gcm_key_data& key);
  ~KeystreamAhead();  // wipes; what is being made just now is wiped by whoever makes it
  KeystreamAhead(const KeystreamAhead&) = delete;
  KeystreamAhead& operator=(const KeystreamAhead&) = delete;

  // The keystream of `iv`'s message from its first block on, if `nbytes` of it are there; valid
  // until `expect`. Null otherwise, and for an IV that was asked for before.
  const std::uint8_t* take(const Iv& iv, std::size_t nbytes);

  // Asks for the next messages' keystreams, so many bytes each (at most kMaxBytes), and drops those
  // of messages that have passed.
  void expect(const IvSchedule& schedule, std::size_t nbytes) noexcept;

 private:
  struct Slot;
  struct Shared;
  void drop(Slot& slot) noexcept;

  const std::shared_ptr<Shared> shared_;  // with jobs that are yet to run
};

}  // namespace pipellm::provider
