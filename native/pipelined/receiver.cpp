#include "pipelined/receiver.h"

#include <algorithm>
#include <new>
#include <string>

namespace pipellm {

Receiver::Receiver(Endpoint& endpoint, BounceRing& ring, CopyEngine& engine, Pool& pool)
    : endpoint_(endpoint), ring_(ring), engine_(engine), pool_(pool), slot_busy_(ring.slots()) {}

Receiver::~Receiver() {
  abandon();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return jobs_ == 0; });
}

Receipt Receiver::receive(std::uint8_t* host, std::uint8_t* device, std::uint64_t nbytes,
                          std::uint32_t number) {
  const std::lock_guard lock(mutex_);
  const Receipt receipt = ++last_;
  const Receipt after = last_into(host, nbytes);
  std::size_t messages = 0;
  for (std::uint64_t done = 0; done < nbytes; done += kMessageBytes, ++messages) {
    const auto length =
        static_cast<std::size_t>(std::min<std::uint64_t>(kMessageBytes, nbytes - done));
    to_ask_.push_back({host + done, device + done, length,
                       number + static_cast<std::uint32_t>(messages), receipt, after});
  }
  unopened_.push_back({host, device, nbytes, messages});
  ask();
  return receipt;
}

// Hands to the engine what has a slot to arrive in.
void Receiver::ask() {
  while (!to_ask_.empty() && !slot_busy_[to_ask_.front().number % ring_.slots()]) {
    const Message message = to_ask_.front();
    to_ask_.pop_front();
    slot_busy_[message.number % ring_.slots()] = true;
    last_command_ = engine_.submit({kD2h, message.device, nullptr, &ring_[message.number],
                                    message.nbytes, [this, message] { arrived(message); }},
                                   /*wake=*/true);
  }
}

// On the thread that plays the engine, which must not open it itself: that may have to wait for others.
// Without a pool it is opened by who waits for it.
void Receiver::arrived(const Message& message) {
  {
    const std::lock_guard lock(mutex_);
    if (abandoned_) return;
    arrived_.push_back(message);
    ++jobs_;
  }
  changed_.notify_all();
  open_on_pool();
}

void Receiver::open_on_pool() {
  const auto over = [this] {
    const std::lock_guard lock(mutex_);
    --jobs_;
    changed_.notify_all();
  };
  bool submitted = false;
  try {
    submitted = pool_.submit_urgent([this, over] {
      open_one();
      over();
    });
  } catch (const std::bad_alloc&) {
  }
  if (!submitted) over();
}

std::deque<Receiver::Message>::iterator Receiver::openable() {
  return std::find_if(arrived_.begin(), arrived_.end(),
                      [this](const Message& message) { return message.after <= completed_; });
}

bool Receiver::open_one() {
  Message message;
  {
    const std::lock_guard lock(mutex_);
    const auto next = openable();
    if (next == arrived_.end()) return false;  // somebody who waits was quicker, or it is not its turn
    message = *next;
    arrived_.erase(next);
    ++opening_;
  }
  open(message);
  return true;
}

void Receiver::open(const Message& message) {
  bool authentic = false;
  try {
    authentic = open_arrived(endpoint_, message.number, ring_[message.number], message.nbytes,
                             message.host);
    if (!authentic) engine_.lose_to_forgery(kD2h, message.number);
  } catch (const std::exception& error) {
    engine_.lose(std::string("a message could not be opened: ") + error.what() +
                 "; the context is lost, restart the program");
  }
  std::unique_lock lock(mutex_);
  std::ptrdiff_t turns = 0;  // messages that waited for what is now over
  if (authentic && !abandoned_) {
    --unopened_[message.receipt - completed_ - 1].messages;
    const Receipt before = completed_;
    while (!unopened_.empty() && unopened_.front().messages == 0) {
      unopened_.pop_front();
      ++completed_;
    }
    turns = std::count_if(arrived_.begin(), arrived_.end(), [&](const Message& waiting) {
      return before < waiting.after && waiting.after <= completed_;
    });
    jobs_ += static_cast<std::size_t>(turns);
    slot_busy_[message.number % ring_.slots()] = false;
    try {
      ask();
    } catch (const std::exception& error) {
      to_ask_.clear();  // whoever waits for them hears of it from the engine
      engine_.lose(std::string("a message could not be asked for: ") + error.what() +
                   "; the context is lost, restart the program");
    }
  }
  lock.unlock();
  for (; turns > 0; --turns) open_on_pool();
  lock.lock();
  --opening_;
  changed_.notify_all();
}

void Receiver::abandon() {
  std::unique_lock lock(mutex_);
  abandoned_ = true;
  to_ask_.clear();
  arrived_.clear();
  changed_.notify_all();
  changed_.wait(lock, [this] { return opening_ == 0; });
}

// With the lock.
Receipt Receiver::last_into(const std::uint8_t* host, std::uint64_t nbytes) const {
  for (std::size_t i = unopened_.size(); i-- > 0;) {
    const Open& open = unopened_[i];
    if (host < open.host + open.nbytes && open.host < host + nbytes) return completed_ + i + 1;
  }
  return 0;
}

Receipt Receiver::touching(const std::uint8_t* host, const std::uint8_t* device,
                           std::uint64_t nbytes) const {
  const auto overlap = [nbytes](const std::uint8_t* one, const std::uint8_t* other,
                                std::uint64_t length) {
    return one < other + length && other < one + nbytes;
  };
  const std::lock_guard lock(mutex_);
  for (std::size_t i = unopened_.size(); i-- > 0;) {
    const Open& open = unopened_[i];
    if (overlap(host, open.host, open.nbytes) || overlap(device, open.device, open.nbytes)) {
      return completed_ + i + 1;
    }
  }
  return 0;
}

void Receiver::wait(Receipt receipt) {
  for (;;) {
    Sequence command = 0;
    {
      const std::lock_guard lock(mutex_);
      if (completed_ >= receipt) return;
      command = last_command_;
    }
    engine_.wait(command);  // plays the engine, if nobody else does; throws if the context is lost
    if (open_one()) continue;
    // What the engine has done has arrived by now; so others are opening what is missing.
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return completed_ >= receipt || openable() != arrived_.end() || last_command_ != command ||
             opening_ == 0;
    });
  }
}

Receipt Receiver::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

Receipt Receiver::completed() const {
  const std::lock_guard lock(mutex_);
  return abandoned_ ? last_ : completed_;
}

}  // namespace pipellm
