// One large update on several cores.
//
// GCM's counter mode can start at any block, and its hash is linear: with Y0 the hash up to some
// point and Y1 that of the next n blocks alone, the hash of both is Y0 * H^n + Y1. So each part of
// a message is an ordinary update of its own, and what is left are additions and multiplications of
// 16 bytes; the latter are the library's GHASH of a single block.
#pragma once

#include <intel-ipsec-mb.h>

#include <cstddef>
#include <functional>

#include "provider/gcm.h"
#include "provider/ipsec_mb.h"

namespace pipellm::provider {

// Does the bytes [from, from + nbytes) of an update, given the state that they begin with, and moves
// that on. `from` is a multiple of 16, but for bytes that complete a block begun before.
using Update =
    std::function<void(gcm_context_data& state, std::size_t from, std::size_t nbytes)>;

// Runs work(0) ... work(parts - 1), in any order and at the same time; false if it ran none.
using Runner =
    std::function<bool(std::size_t parts, const std::function<void(std::size_t)>& work)>;

// For one key. Immutable, and wiped with the key: it holds a power of H.
class Split {
 public:
  // `part_bytes` is a power of two from 16 up.
  Split(const IpsecMb& library, const gcm_key_data& key, std::size_t part_bytes);
  ~Split();
  Split(const Split&) = delete;
  Split& operator=(const Split&) = delete;

  // An update of `nbytes`: in parts, each of them by `update`; or at once, if `run` ran nothing.
  void update(gcm_context_data& state, std::size_t nbytes, const Update& update,
              const Runner& run) const;

 private:
  static constexpr std::size_t kMaxParts = 256;  // of one call of `run`

  bool split(gcm_context_data& state, std::size_t from, std::size_t nbytes, const Update& update,
             const Runner& run) const;

  const IpsecMb& library_;
  const std::size_t part_bytes_;
  alignas(kKeyDataAlignment) gcm_key_data power_;  // H^(blocks of a part), prepared
};

}  // namespace pipellm::provider
