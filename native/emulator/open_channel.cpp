#include "emulator/open_channel.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace pipellm {

namespace {

// Enough for both sides to work at the same time, small enough to stay in a CPU's cache.
constexpr std::size_t kBounceSlots = 16;

}  // namespace

OpenChannel::OpenChannel(std::unique_ptr<SecureChannel> host_side, CopyEngine& engine, Clock& clock)
    : host_side_(std::move(host_side)),
      engine_(engine),
      clock_(clock),
      h2d_ring_(kBounceSlots),
      d2h_ring_(kBounceSlots),
      slot_uses_(kBounceSlots) {}

void OpenChannel::require_next(Direction direction, std::uint32_t number) {
  engine_.wait(0);  // one that failed with the context has left the count where it was
  if (number == endpoint(direction).last() + 1) return;
  throw std::logic_error(std::string(direction_name(direction)) + " message " +
                         std::to_string(number) + " is not the next one");
}

void OpenChannel::in_step(Direction direction, std::uint32_t count,
                          const std::function<void(std::uint32_t)>& body) {
  engine_.wait(0);  // for a lost context nobody reads the program's memory any more
  const std::uint32_t first = endpoint(direction).take(count);
  try {
    body(first);
  } catch (const ContextLost&) {
    throw;
  } catch (const std::exception& error) {
    engine_.lose(std::string("a copy failed half-way: ") + error.what() +
                 "; the context is lost, restart the program");
    engine_.wait(0);
  }
}

bool OpenChannel::slot_is_free(std::uint32_t number) {
  const SlotUse& use = slot_uses_[number % slot_uses_.size()];
  return use.free_at <= clock_.now() && use.command <= engine_.completed();
}

void OpenChannel::wait_for_slot(std::uint32_t number) {
  const SlotUse& use = slot_uses_[number % slot_uses_.size()];
  clock_.wait_until(use.free_at);
  engine_.wait(use.command);
}

void OpenChannel::slot_used(std::uint32_t number, Sequence command, Nanoseconds free_at) {
  slot_uses_[number % slot_uses_.size()] = {command, free_at};
}

}  // namespace pipellm
