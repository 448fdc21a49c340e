#include "split.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "secret.h"

namespace pipellm::provider {

namespace {

// The state of a message whose data starts `blocks` after that of `state`, with nothing hashed yet.
gcm_context_data further(const gcm_context_data& state, std::size_t blocks) {
  gcm_context_data moved = state;
  moved.in_length = 0;
  set_hash(moved, {});
  // The counter is the last 32 bits of the counter block, and wraps by itself. The library keeps
  // the block the other way round.
  std::uint32_t counter;
  std::memcpy(&counter, moved.current_counter, sizeof counter);
  counter += static_cast<std::uint32_t>(blocks);
  std::memcpy(moved.current_counter, &counter, sizeof counter);
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

void Split::update(Direction direction, const gcm_key_data& key, gcm_context_data& state,
                   Bytes input, std::uint8_t* output, const Runner& run) const {
  const auto whole = library_.update(direction);
  // Parts are whole blocks. What comes before and after is the library's as it is.
  const std::size_t begun = state.partial_block_length % kBlockBytes;
  const std::size_t head = begun == 0 ? 0 : std::min(input.size(), kBlockBytes - begun);
  std::size_t next = head;
  if (head > 0) whole(&key, &state, output, input.data(), head);
  while (input.size() - next >= kBlockBytes) {
    const std::size_t nbytes = std::min((input.size() - next) / kBlockBytes * kBlockBytes,
                                        kMaxParts * part_bytes_);
    const Bytes blocks = input.subspan(next, nbytes);
    if (!split(direction, key, state, blocks, output + next, run)) {
      whole(&key, &state, output + next, blocks.data(), blocks.size());
    }
    next += nbytes;
  }
  if (next < input.size()) whole(&key, &state, output + next, &input[next], input.size() - next);
}

bool Split::split(Direction direction, const gcm_key_data& key, gcm_context_data& state,
                  Bytes input, std::uint8_t* output, const Runner& run) const {
  const std::size_t parts = (input.size() + part_bytes_ - 1) / part_bytes_;
  if (parts < 2) return false;
  // The first part takes what is left over, so that all later ones want the same power of H.
  const std::size_t first = input.size() - (parts - 1) * part_bytes_;
  std::array<Block, kMaxParts> hashes;
  const auto update_part = library_.update(direction);
  const bool ran = run(parts, [&](std::size_t part) {
    const std::size_t from = part == 0 ? 0 : first + (part - 1) * part_bytes_;
    gcm_context_data mine = further(state, from / kBlockBytes);
    if (part == 0) std::memcpy(mine.aad_hash, state.aad_hash, sizeof mine.aad_hash);
    update_part(&key, &mine, output + from, input.data() + from, part == 0 ? first : part_bytes_);
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
  const std::uint64_t in_length = state.in_length + input.size();
  state = further(state, input.size() / kBlockBytes);
  state.in_length = in_length;
  set_hash(state, hash);
  return true;
}

}  // namespace pipellm::provider
