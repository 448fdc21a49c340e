// The state of the fake driver's devices, and how their streams advance. See fake_driver.cpp.
#pragma once

#include "link/driver_api.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace fake_device {

struct Event {
  int32_t device = 0;
  int64_t stream = 0;
  uint64_t recorded = 0, reached = 0;  // how often it was enqueued, and how often passed
  int64_t time_ns = 0;
};

struct Command {
  enum Kind { kCopy, kRecord, kWait, kBusy } kind;
  PipellmCopy copy{};
  Event* event = nullptr;
  uint64_t version = 0;
  int64_t busy_ns = 0;
};

struct Stream {
  std::deque<Command> pending;
  int64_t time_ns = 0;
};

struct Block {
  uint64_t nbytes;
  int32_t device;  // -1: pinned host memory
};

struct Fake {
  PipellmDriver table{};
  std::recursive_mutex mutex;
  int devices = 1;
  uint64_t capacity = 0;
  bool confidential = false;
  pid_t user = 0;  // the process that used the device first
  int fail_next_copy = PIPELLM_OK;
  int64_t copies[2] = {0, 0};
  std::map<const char*, Block> blocks;
  std::map<std::pair<int32_t, int64_t>, Stream> streams;
  std::vector<PipellmMemoryInfo> memory;
  int64_t next_stream = 1;
  std::vector<PipellmCopy> done;  // tokens to release once the lock is given back
};

inline Fake fake;
inline thread_local std::string words;

inline int fail(int status, const char* message) {
  words = message;
  return status;
}

inline bool forked() { return fake.user != 0 && fake.user != getpid(); }

// An entry's frame: takes the lock, and releases finished copies' tokens after giving it back.
struct Entry {
  Entry() {
    fake.mutex.lock();
    if (fake.user == 0) fake.user = getpid();
  }
  ~Entry() {
    std::vector<PipellmCopy> done;
    done.swap(fake.done);
    fake.mutex.unlock();
    for (const PipellmCopy& copy : done) copy.release(copy.token);
  }
};

inline const Block* find(const void* pointer, const char** base = nullptr) {
  const char* address = static_cast<const char*>(pointer);
  auto after = fake.blocks.upper_bound(address);
  if (after == fake.blocks.begin()) return nullptr;
  --after;
  if (address >= after->first + after->second.nbytes) return nullptr;
  if (base != nullptr) *base = after->first;
  return &after->second;
}

inline void move_bytes(const PipellmCopy& copy) {
  std::memcpy(copy.destination, copy.source, copy.nbytes);
  if (copy.release != nullptr) fake.done.push_back(copy);
}

inline void drain(Stream& stream) {
  while (!stream.pending.empty()) {
    const Command command = stream.pending.front();
    stream.pending.pop_front();
    if (command.kind == Command::kCopy) {
      move_bytes(command.copy);
    } else if (command.kind == Command::kRecord) {
      command.event->reached = command.version;
      command.event->time_ns = stream.time_ns;
    } else if (command.kind == Command::kBusy) {
      stream.time_ns += command.busy_ns;
    } else {
      if (command.event->reached < command.version) {
        drain(fake.streams[{command.event->device, command.event->stream}]);
      }
      stream.time_ns = std::max(stream.time_ns, command.event->time_ns);
    }
  }
}

}  // namespace fake_device
