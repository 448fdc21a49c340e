// How one copy goes, with confidential computing off (in the clear, the driver does nothing but
// queue it) and on (as NVIDIA's driver does it: sealed on the calling thread, in order, when asked).
#include <algorithm>
#include <deque>

#include "base/copy_count.h"
#include "emulator/context.h"

namespace pipellm {

namespace {

// So much may be queued in the clear: enough for the engine to work beside the program.
constexpr std::uint64_t kQueuedBytes = std::uint64_t{64} << 20;

}  // namespace

void Context::copy(const PipellmCopy& copy) {
  const Transfer transfer = transfer_of(copy, pinned_.contains(host_side(copy), copy.nbytes));
  CopyCount count(clock_, counters_);
  Sequence command = 0;
  try {
    engine_.wait(0);  // a lost context does nothing more
    // Who copies from and to the host waits, itself, for what its stream waits for.
    if (transfer.nbytes != 0) reach(transfer.stream);
    if (transfer.nbytes == 0) {
      // Nothing to move; CUDA still orders it, which for no bytes means nothing.
    } else if (!options_.confidential) {
      command = copy_clear(transfer);
    } else if (transfer.direction == kH2d) {
      command = copy_sealed_h2d(transfer);
    } else {
      command = copy_sealed_d2h(transfer);
    }
  } catch (...) {
    // What was queued before it failed still uses the buffers.
    command = engine_.submitted();
    tokens_.hold(copy.release, copy.token, {.command = command});
    try {
      if (transfer.blocking()) engine_.wait(command);
    } catch (const ContextLost&) {
    }
    settle_if_lost();
    reap();
    throw;
  }
  tokens_.hold(copy.release, copy.token, {.command = command});
  counters_.add(Counter::kLinkTransfers, 1);
  counters_.add(Counter::kLinkBytes, static_cast<std::int64_t>(transfer.nbytes));
  if (!counters_.layered()) count.done(transfer.direction, transfer.nbytes);
  reap();
}

Sequence Context::copy_clear(const Transfer& transfer) {
  const Nanoseconds start = clock_.now();
  const PathCost& cost = options_.cost.path(transfer.direction, transfer.pinned);
  const Nanoseconds engine_time = cost.engine(transfer.nbytes);
  // A toll without a cipher is the limit of the hardware: policy `ideal`.
  const Nanoseconds issue = cost.toll > 0 ? cost.toll : options_.cost.launch;
  const Nanoseconds call_time = std::max(
      engine_time + cost.toll, cost.call ? (*cost.call)(transfer.nbytes) : Nanoseconds{0});
  const Command command{transfer.direction, transfer.device, transfer.host, nullptr,
                        transfer.nbytes};

  if (transfer.asynchronous && transfer.pinned) {
    // What is queued keeps its buffers, where CUDA's allocator would hand a freed destination out again
    // in stream order. Waiting costs no modelled time: the clock stands still meanwhile.
    engine_.make_room(kQueuedBytes);
    const Nanoseconds issued = start + issue;
    const Sequence sequence = engine_.submit(command, /*wake=*/true);
    schedule(transfer, issued, engine_time, sequence);
    clock_.wait_until(issued);
    return sequence;
  }
  // What a call takes beyond the engine's time is the driver's own, before the engine starts.
  const Sequence sequence = engine_.submit(command, /*wake=*/false);
  const Span span = schedule(transfer, start + call_time - engine_time, engine_time, sequence);
  engine_.wait(sequence);
  // An asynchronous H2D of pageable memory returns when the driver has staged the bytes, whatever
  // the stream is still busy with.
  const bool staged = transfer.asynchronous && transfer.direction == kH2d;
  clock_.wait_until(staged ? start + call_time : span.end);
  return sequence;
}

Sequence Context::copy_sealed_h2d(const Transfer& transfer) {
  // Facts, protocol: a copy of pinned memory blocks until all that was queued before it is done.
  const bool blocking = !transfer.asynchronous || transfer.pinned;
  if (transfer.pinned) synchronize(transfer.stream);

  const auto serialise = channel_->serialise();
  const PathCost& cost = options_.cost.path(transfer.direction, transfer.pinned);
  const Nanoseconds engine_time = cost.engine(transfer.nbytes);
  const Nanoseconds call_time = cost.call ? (*cost.call)(transfer.nbytes) : 0;
  const std::uint64_t tail = (transfer.nbytes - 1) % kMessageBytes + 1;
  const Nanoseconds host_time =
      std::max<Nanoseconds>(0, call_time - share(engine_time, tail, transfer.nbytes));
  const Nanoseconds start = clock_.now();
  if (!cost.call) clock_.wait_until(start + cost.toll);

  Sequence sequence = 0;
  Nanoseconds end = 0;
  const std::uint32_t count = messages_of(transfer.nbytes);
  Endpoint& endpoint = channel_->endpoint(kH2d);
  channel_->in_step(kH2d, count, [&](std::uint32_t first) {
    for (std::uint32_t index = 0; index < count; ++index) {
      const std::uint64_t offset = std::uint64_t{index} * kMessageBytes;
      const std::size_t length = length_of_message(transfer.nbytes, index);
      const std::uint32_t number = first + index;
      channel_->wait_for_slot(number);
      BounceSlot& slot = channel_->ring(kH2d)[number];
      endpoint.seal(number, {transfer.host + offset, length}, slot.ciphertext, slot.tag);
      slot.nbytes = static_cast<std::uint32_t>(length);

      const bool last = index + 1 == count;
      const Command command{kH2d, transfer.device + offset, nullptr, &slot, length};
      sequence = engine_.submit(command, /*wake=*/!(last && blocking));
      clock_.wait_until(start + share(host_time, offset + length, transfer.nbytes));
      end = schedule(transfer, clock_.now(), share(engine_time, length, transfer.nbytes), sequence)
                .end;
      channel_->slot_used(number, sequence, end);
    }
  });
  if (blocking) {
    clock_.wait_until(end);
    engine_.wait(sequence);
  }
  return sequence;
}

Sequence Context::copy_sealed_d2h(const Transfer& transfer) {
  // Synchronous in every case: the calling thread itself opens what arrives.
  const auto serialise = channel_->serialise();
  const PathCost& cost = options_.cost.path(transfer.direction, transfer.pinned);
  const Nanoseconds engine_time = cost.engine(transfer.nbytes);
  const Nanoseconds call_time = cost.call ? (*cost.call)(transfer.nbytes) : 0;
  const BounceRing& ring = channel_->ring(kD2h);
  const Nanoseconds start = clock_.now();
  if (!cost.call) clock_.wait_until(start + cost.toll);

  struct Message {
    std::uint32_t number;
    Sequence sequence;
    Nanoseconds arrives;
  };
  std::deque<Message> in_flight;
  const std::uint32_t count = messages_of(transfer.nbytes);
  channel_->in_step(kD2h, count, [&](std::uint32_t first) {
    std::uint32_t asked = 0;
    for (std::uint32_t opened = 0; opened < count; ++opened) {
      for (; asked < count && in_flight.size() < ring.slots(); ++asked) {
        const std::size_t length = length_of_message(transfer.nbytes, asked);
        const std::uint32_t number = first + asked;
        const Command command{kD2h, transfer.device + std::uint64_t{asked} * kMessageBytes,
                              nullptr, &ring[number], length};
        const Sequence sequence = engine_.submit(command, /*wake=*/transfer.nbytes > kMessageBytes);
        const Nanoseconds share_of_engine = share(engine_time, length, transfer.nbytes);
        const Span span = schedule(transfer, clock_.now(), share_of_engine, sequence);
        in_flight.push_back({number, sequence, span.end});
      }
      const Message message = in_flight.front();
      in_flight.pop_front();
      clock_.wait_until(message.arrives);
      engine_.wait(message.sequence);

      const std::uint64_t offset = std::uint64_t{opened} * kMessageBytes;
      const std::size_t length = length_of_message(transfer.nbytes, opened);
      if (!open_arrived(channel_->endpoint(kD2h), message.number, ring[message.number], length,
                        transfer.host + offset)) {
        engine_.lose_to_forgery(kD2h, message.number);
        engine_.wait(0);
      }
      clock_.wait_until(start + share(call_time, offset + length, transfer.nbytes));
    }
  });
  return engine_.submitted();
}

}  // namespace pipellm
