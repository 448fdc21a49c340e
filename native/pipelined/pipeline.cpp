// What the program asks of a pipeline. What a runtime has it do: pipeline_actions.cpp.
#include "pipelined/pipeline.h"

#include <algorithm>
#include <stdexcept>

#include "base/copy_count.h"

namespace pipellm {

Pipeline::Pipeline(Context& device, const PinnedMemory& pinned, const Declarations& declarations,
                   const Options& options, const MakeRuntime& make_runtime)
    : device_(device),
      pinned_(pinned),
      clock_(device.clock()),
      pool_(std::make_unique<Pool>(options.threads)),
      tracker_(std::make_unique<WriteTracker>()),
      seal_ahead_(std::make_unique<SealAhead>(device.channel().endpoint(kH2d), *pool_, *tracker_,
                                              declarations, clock_, device.counters(),
                                              options.arena_messages)),
      receiver_(std::make_unique<Receiver>(device.channel().endpoint(kD2h),
                                           device.channel().ring(kD2h), device.engine(), *pool_)),
      nop_stream_(device.create_stream()) {
  runtime_ = make_runtime(*this);
}

Pipeline::~Pipeline() {
  runtime_->stop_threads();  // they use all the rest
  device_.engine().discard();  // its commands refer to the receiver
}

void Pipeline::copy(const PipellmCopy& copy) {
  const Transfer transfer = transfer_of(copy, pinned_.contains(host_side(copy), copy.nbytes));
  CopyCount count(clock_, device_.counters());
  Request call{.transfer = transfer, .token = copy.token, .release = copy.release};
  try {
    device_.engine().wait(0);  // a lost context does nothing more
    device_.reach(transfer.stream);
    go(call);
  } catch (...) {
    // What was queued before it failed still uses the buffers.
    call.command = device_.engine().submitted();
    hold(call);
    try {
      if (transfer.blocking()) device_.engine().wait(call.command);
    } catch (const ContextLost&) {
    }
    settle_if_lost();
    reap();
    throw;
  }
  count.done(transfer.direction, transfer.nbytes);
  reap();
}

void Pipeline::go(Request& call) {
  const auto request = std::make_shared<Request>(call);
  const Transfer& transfer = request->transfer;
  Ordinal ordinal = 0;
  {
    const std::lock_guard lock(mutex_);
    ordinal = ++last_ordinal_;
    requests_.emplace(ordinal, request);
    call.release = nullptr;  // the token is the request's from now on
    unsent_.fetch_add(1);
  }
  try {
    runtime_->request(ordinal, transfer);
    if (!transfer.blocking()) return;

    std::unique_lock lock(mutex_);
    request_changed_.wait(lock, [&] { return request->state != Request::State::kSending; });
    if (request->state == Request::State::kWaiting) {
      throw std::logic_error("the runtime left a blocking copy unsent");
    }
    requests_.erase(ordinal);
  } catch (...) {
    withdraw(ordinal, *request);
    throw;
  }
  // An asynchronous copy from pageable memory returns once its source was read.
  if (transfer.asynchronous && transfer.direction == kH2d) return;
  clock_.wait_until(request->end);
  await(request->command, request->receipt);
}

// A copy whose call fails, for whatever reason. The program may take its memory back at once, unless
// it was asynchronous and is on its way: then it has a token, or waits for its stream.
void Pipeline::withdraw(Ordinal ordinal, Request& request) {
  {
    std::unique_lock lock(mutex_);
    request_changed_.wait(lock, [&] { return request.state != Request::State::kSending; });
    requests_.erase(ordinal);
    if (request.state == Request::State::kWaiting) {
      request.state = Request::State::kFailed;
      hold(request);
      unsent_.fetch_sub(1);
    }
  }
  if (request.state != Request::State::kSent || !request.transfer.blocking()) return;
  try {
    await(request.command, request.receipt);
  } catch (const ContextLost&) {
  }
}

void Pipeline::hold(Request& request) {
  tokens_.hold(request.release, request.token,
               {.command = request.command, .receipt = request.receipt});
  request.release = nullptr;
}

void Pipeline::order(std::optional<Stream> stream) {
  // Nothing to put in order, nearly always; and launches are many.
  if (unsent_.load(std::memory_order_acquire) == 0) return;
  try {
    runtime_->order(stream);
  } catch (...) {
    settle_if_lost();
    throw;
  }
}

void Pipeline::flush(std::optional<Stream> stream) {
  try {
    runtime_->synchronize(stream);
  } catch (...) {
    settle_if_lost();
    throw;
  }
}

Receipt Pipeline::due(Stream stream) {
  const std::lock_guard lock(mutex_);
  const auto found = due_.find(stream);
  return found == due_.end() ? 0 : found->second;
}

void Pipeline::inherit(Stream stream, Receipt receipt) {
  if (receipt == 0) return;
  const std::lock_guard lock(mutex_);
  Receipt& due = due_[stream];
  due = std::max(due, receipt);
}

void Pipeline::await(Receipt receipt) {
  if (receipt != 0) await(0, receipt);
}

void Pipeline::await(Sequence command, Receipt receipt) {
  try {
    device_.engine().wait(command);
    if (receipt != 0) receiver_->wait(receipt);
  } catch (...) {
    settle_if_lost();
    throw;
  }
}

void Pipeline::settle_if_lost() {
  if (!device_.engine().lost()) return;
  device_.settle_if_lost();
  receiver_->abandon();
  {
    const std::lock_guard lock(mutex_);
    for (auto at = requests_.begin(); at != requests_.end();) {
      Request& request = *at->second;
      // A blocking one belongs to the thread that waits for it.
      if (request.state != Request::State::kWaiting || request.transfer.blocking()) {
        ++at;
        continue;
      }
      request.state = Request::State::kFailed;
      hold(request);
      at = requests_.erase(at);
      unsent_.fetch_sub(1);
    }
  }
  reap();
}

Progress Pipeline::reached() const {
  return {.command = device_.engine().completed(), .receipt = receiver_->completed()};
}

void Pipeline::reap() {
  if (tokens_.any()) tokens_.let_go(reached());
}

void Pipeline::finish_and_reap() {
  await(device_.engine().submitted(), receiver_->last());
  reap();
}

void Pipeline::stop_reading(const void* start, std::uint64_t nbytes) {
  if (nbytes == 0) return;
  seal_ahead_->stop_reading(start, nbytes);
  freed_.add(start, nbytes);
}

// The runtime's threads first: they give the pool work.
void Pipeline::wait_idle() {
  runtime_->wait_idle();
  pool_->wait_idle();
}

void Pipeline::freeze() {
  runtime_->freeze();
  pool_->freeze();
}

void Pipeline::thaw() {
  pool_->thaw();
  runtime_->thaw();
}

void Pipeline::stop_threads() {
  runtime_->stop_threads();
  pool_->stop();
}

void Pipeline::go_blind(bool bytes) {
  tracker_->go_blind();
  if (bytes) seal_ahead_->go_blind();
}

}  // namespace pipellm
