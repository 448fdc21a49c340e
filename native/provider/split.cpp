#include "provider/split.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/secret.h"

namespace pipellm::provider {

namespace {

// The state of a message whose data starts `blocks` after that of `state`, with nothing hashed yet.
gcm_context_data further(const gcm_context_data& state, std::size_t blocks) {
  gcm_context_data moved = state;
  skip(moved, blocks);
  set_hash(moved, {});
  return moved;
}

}  // namespace

Split::Split(const IpsecMb& library, const gcm_key_data& key, std::size_t part_bytes)
    : library_(library), part_bytes_(part_bytes) {
  // H is the hash of one block that stands for 1. Squared again and again, it becomes H^(2^k).
  Block one{0x80}, power{};
  library_.ghash(&key, one.data(), one.size(), power.data(), power.size());
  library_.prepare(power.data(), &power_);
  for (std::size_t blocks = 1; blocks < part_bytes / kBlockBytes; blocks *= 2) {
    Block square{};
    library_.ghash(&power_, power.data(), power.size(), square.data(), square.size());
    power = square;
    library_.prepare(power.data(), &power_);
    wipe(square.data(), square.size());
  }
  wipe(power.data(), power.size());
}

Split::~Split() { wipe(&power_, sizeof power_); }

void Split::update(gcm_context_data& state, std::size_t nbytes, const Update& update,
                   const Runner& run) const {
  // Parts are whole blocks. What comes before and after is done as it is.
  const std::size_t begun = state.partial_block_length % kBlockBytes;
  const std::size_t head = begun == 0 ? 0 : std::min(nbytes, kBlockBytes - begun);
  std::size_t next = head;
  if (head > 0) update(state, 0, head);
  while (nbytes - next >= kBlockBytes) {
    const std::size_t blocks = std::min((nbytes - next) / kBlockBytes * kBlockBytes,
                                        kMaxParts * part_bytes_);
    if (!split(state, next, blocks, update, run)) update(state, next, blocks);
    next += blocks;
  }
  if (next < nbytes) update(state, next, nbytes - next);
}

bool Split::split(gcm_context_data& state, std::size_t from, std::size_t nbytes,
                  const Update& update, const Runner& run) const {
  const std::size_t parts = (nbytes + part_bytes_ - 1) / part_bytes_;
  if (parts < 2) return false;
  // The first part takes what is left over, so that all later ones want the same power of H.
  const std::size_t first = nbytes - (parts - 1) * part_bytes_;
  std::array<Block, kMaxParts> hashes;
  const bool ran = run(parts, [&](std::size_t part) {
    const std::size_t skipped = part == 0 ? 0 : first + (part - 1) * part_bytes_;
    gcm_context_data mine = further(state, skipped / kBlockBytes);
    if (part == 0) std::memcpy(mine.aad_hash, state.aad_hash, sizeof mine.aad_hash);
    update(mine, from + skipped, part == 0 ? first : part_bytes_);
    hashes[part] = get_hash(mine);
    wipe(&mine, sizeof mine);
  });
  if (!ran) return false;

  Block hash = hashes[0];
  for (std::size_t part = 1; part < parts; ++part) {
    Block moved{};
    library_.ghash(&power_, hash.data(), hash.size(), moved.data(), moved.size());
    for (std::size_t i = 0; i < kBlockBytes; ++i) hash[i] = moved[i] ^ hashes[part][i];
  }
  skip(state, nbytes / kBlockBytes);
  set_hash(state, hash);
  return true;
}

}  // namespace pipellm::provider
