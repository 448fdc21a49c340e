// The device behind stub_cudart.h: operations, in the order that streams and events give them.
//
// All but `fail` and `usable` are called with the device's mutex held.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "stub_cudart.h"

struct Op {
  std::function<void()> work;
  std::vector<std::shared_ptr<Op>> after;
  bool held = false, to_host = false, done = false;
};
using OpPointer = std::shared_ptr<Op>;

struct CUstream_st {
  bool blocking = true, capturing = false;
  OpPointer last;
};
struct CUevent_st {
  OpPointer op;
};

using Graph = std::vector<std::function<void()>>;

// Leaked: at exit, the device's thread goes on.
struct Gpu {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<OpPointer> waiting;
  std::vector<Stream> streams;
  std::map<const char*, std::size_t> device_memory, host_memory;
  CUstream_st legacy;
  Graph captured;
  bool capturing_somewhere = false, holding = false, holding_copies = false;
  std::mt19937 random{std::random_device{}()};
  std::map<int, int> copies;
  std::map<int, Error> to_fail;
  int stalls = 0;
  const pid_t owner = getpid();
  const bool copies_block = [] {
    const char* set = std::getenv("STUB_CC");
    return set != nullptr && std::strcmp(set, "on") == 0;
  }();
};

Gpu& gpu();

extern thread_local Error last_error;
extern thread_local bool may_release;  // this thread holds work up: if it waits, nobody lets go

Error fail(Error error);

// CUDA cannot be used in a child of a process that used it.
bool usable();
inline constexpr Error kUnusable = 3;

Stream resolve(Stream stream, bool own_default = false);
// What has to be done before anything that comes to `stream` now.
std::vector<OpPointer> before(Stream stream);
// What has to be done before `stream` itself is.
std::vector<OpPointer> of(Stream stream);

OpPointer submit(Stream stream, std::function<void()> work, Op properties = {});
void wait(std::unique_lock<std::mutex>& lock, const OpPointer& op);
