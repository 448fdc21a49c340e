// Programs for a GPU, one per scene; each knows nothing of the library that is preloaded, and ends
// with status 0 if everything was as CUDA has it.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>

#include "stub_cudart.h"

// SCENE(name) { ... }
#define SCENE(name)                                                      \
  static void name();                                                    \
  static const bool added_##name = scenes().emplace(#name, name).second; \
  static void name()

inline std::map<std::string, void (*)()>& scenes() {
  static std::map<std::string, void (*)()> all;
  return all;
}

inline constexpr std::size_t kLarge = 300 << 10, kSmall = 64 << 10;
inline constexpr unsigned kNonBlocking = 1, kMapped = 2;

inline void require(bool condition, const char* what, int line) {
  if (condition) return;
  std::fprintf(stderr, "line %d: %s\n", line, what);
  std::_Exit(1);
}
#define REQUIRE(condition) require(condition, #condition, __LINE__)
#define OK(call) REQUIRE((call) == 0)

struct Memory {
  explicit Memory(std::size_t size = kLarge, unsigned flags = 0) : nbytes(size) {
    OK(cudaMalloc(&device, size));
    OK(cudaHostAlloc(&host, size, flags));
    std::memset(host, 1, size);
  }
  bool host_is(int value) const {
    const auto* bytes = static_cast<unsigned char*>(host);
    for (std::size_t i = 0; i < nbytes; ++i) {
      if (bytes[i] != value) return false;
    }
    return true;
  }
  Error to_device(Stream stream) const {
    return cudaMemcpyAsync(device, host, nbytes, kH2D, stream);
  }
  Error to_host(Stream stream) const { return cudaMemcpyAsync(host, device, nbytes, kD2H, stream); }

  std::size_t nbytes;
  void *device = nullptr, *host = nullptr;
};

inline Stream new_stream(unsigned flags = kNonBlocking) {
  Stream stream;
  OK(cudaStreamCreateWithFlags(&stream, flags));
  return stream;
}
inline Event new_event() {
  Event event;
  OK(cudaEventCreateWithFlags(&event, 0));
  return event;
}

// A copy to the host of 7s that has left its stream, and is kept from its end for a moment by a
// thread that nobody waits for. What follows must wait for it, or read 1s.
struct Late {
  explicit Late(Stream stream) {
    OK(cudaMemsetAsync(memory.device, 7, memory.nbytes, stream));
    std::thread([this, stream] {  // so that it is not this thread that would have to let go
      stub_hold_copies_to_host(1);
      OK(memory.to_host(stream));
    }).join();
    release = std::thread([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      stub_hold_copies_to_host(0);
    });
  }
  ~Late() { release.join(); }
  Memory memory;
  std::thread release;
};

// Copies there and back; whether they went by way of staging memory.
inline bool staged(const Memory& memory, Stream stream) {
  const int before = stub_copies(3, 1);
  std::memset(memory.host, 4, memory.nbytes);
  OK(memory.to_device(stream));
  OK(cudaStreamSynchronize(stream));
  std::memset(memory.host, 0, memory.nbytes);
  OK(memory.to_host(stream));
  OK(cudaStreamSynchronize(stream));
  REQUIRE(memory.host_is(4));
  return stub_copies(3, 1) > before;
}
