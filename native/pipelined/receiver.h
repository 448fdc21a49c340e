// Swap-outs that the program need not wait for: the engine seals, the pool opens.
//
// Messages are asked for in the order of their numbers, as bounce slots come free, and opened in any
// order, since each carries its IV; but two receipts into the same bytes one after the other, so that
// the later one wins. A receipt is over when all its bytes are in place and verified; nothing tells a
// program so earlier.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "base/pool.h"
#include "crypto/channel.h"
#include "emulator/bounce_ring.h"
#include "emulator/copy_engine.h"

namespace pipellm {

using Receipt = std::uint64_t;  // 0: none

// Internally locked.
class Receiver {
 public:
  // All outlive this object.
  Receiver(Endpoint& endpoint, BounceRing& ring, CopyEngine& engine, Pool& pool);
  ~Receiver();  // the engine has discarded its commands by then; waits for what is being opened

  // Device memory to host memory, as messages `number`, `number` + 1, ... Receipts are numbered from 1
  // in the order of these calls.
  Receipt receive(std::uint8_t* host, std::uint8_t* device, std::uint64_t nbytes,
                  std::uint32_t number);

  // The last receipt that is not over and touches this host or this device memory. Whoever reads the
  // one or writes the other must wait for it: copies of one stream may not pass each other.
  Receipt touching(const std::uint8_t* host, const std::uint8_t* device, std::uint64_t nbytes) const;

  // Until the receipt, and every one before it, is over. Opens messages itself meanwhile. Throws
  // ContextLost.
  void wait(Receipt receipt);
  Receipt completed() const;  // all, after `abandon`
  Receipt last() const;

  // The context is lost, and the engine has settled: opens nothing more. Returns when nobody writes to
  // the program's memory any more.
  void abandon();

 private:
  struct Message {
    std::uint8_t* host;
    std::uint8_t* device;
    std::size_t nbytes;
    std::uint32_t number;
    Receipt receipt;
    Receipt after;  // not opened before this one is over
  };

  void ask();  // with the lock
  void arrived(const Message& message);
  bool open_one();  // false if nothing that may be opened waits for it
  std::deque<Message>::iterator openable();  // with the lock
  Receipt last_into(const std::uint8_t* host, std::uint64_t nbytes) const;
  void open(const Message& message);
  void open_on_pool();

  Endpoint& endpoint_;
  BounceRing& ring_;
  CopyEngine& engine_;
  Pool& pool_;

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::deque<Message> to_ask_;
  std::deque<Message> arrived_;
  std::vector<bool> slot_busy_;
  struct Open {
    const std::uint8_t* host;
    const std::uint8_t* device;
    std::uint64_t nbytes;
    std::size_t messages;  // not opened yet
  };
  std::deque<Open> unopened_;  // receipts completed_ + 1, + 2, ...
  Receipt last_ = 0;
  Receipt completed_ = 0;
  Sequence last_command_ = 0;
  bool abandoned_ = false;
  std::size_t opening_ = 0;  // messages being opened
  std::size_t jobs_ = 0;     // submitted to the pool and not over
};

}  // namespace pipellm
