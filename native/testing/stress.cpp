#include "testing/stress.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "testing/guessing_runtime.h"

namespace pipellm::stress {

namespace {

std::atomic<const char*> way_played{""};  // of the last GPU that was made

}  // namespace

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "stress: %s: %s\n", way_played.load(), what.c_str());
  std::abort();
}

const char* name_of(Way way) {
  switch (way) {
    case Way::kClear: return "in the clear";
    case Way::kSerial: return "sealed when asked for";
    case Way::kAhead: return "sealed ahead";
    case Way::kPrefetch: return "prefetched";
  }
  return "";
}

Gpu::Gpu(Way way) {
  way_played = name_of(way);
  const DeviceOptions options{1024 * kMiB, way != Way::kClear, true, engines().back(),
                              engines().back(), {}};
  driver_ = std::make_unique<Driver>(1, options, std::make_shared<RealClock>(), counters_);
  if (way == Way::kAhead) {
    pipeline([](int, Pipeline& over) { return std::make_unique<GuessingRuntime>(over); });
  }
  if (way == Way::kPrefetch) {
    const prefetch::Options small{64 * kMiB, kMiB, 3};
    prefetching_ =
        std::make_unique<prefetch::PrefetchDriver>(driver_->api(), small, declarations_.never_ahead);
  }
}

Gpu::~Gpu() = default;

void Gpu::pipeline(Pipelined::MakeRuntime make_runtime) {
  pipelined_ = std::make_unique<Pipelined>(
      *driver_, declarations_, Pipeline::Options{.threads = 2, .arena_messages = 64},
      std::move(make_runtime));
}

void Gpu::stop_threads() {
  if (prefetching_ != nullptr) prefetching_->stop_threads();
  if (pipelined_ != nullptr) pipelined_->stop_threads();
  driver_->stop_threads();
}

int Gpu::copy(Direction direction, void* host, void* device, std::uint64_t nbytes,
              bool asynchronous, std::int64_t stream) {
  const bool h2d = direction == kH2d;
  ++held_;
  const PipellmCopy request{0,      direction, h2d ? device : host, h2d ? host : device,
                            nbytes, asynchronous, 0, stream, &held_,
                            [](void* token) { --*static_cast<std::atomic<int>*>(token); }};
  const int status = api().copy(api().self, &request);
  if (prefetching_ != nullptr && h2d && status == PIPELLM_OK) {
    // What was copied once is expected again.
    std::vector<prefetch::Order> orders;
    const prefetch::Range all = prefetch::range_of(host, nbytes);
    for (std::uint64_t start = 0; start < nbytes; start += kMiB / 2) {
      const std::uint64_t length = std::min<std::uint64_t>(kMiB / 2, nbytes - start);
      orders.push_back({prefetch::Order::Kind::kTransfer, {{all.start + start, length}}});
    }
    prefetching_->order(0, std::move(orders));
  }
  return status;
}

void* Gpu::device_memory(std::uint64_t nbytes) {
  void* memory = nullptr;
  require(api().malloc(api().self, 0, nbytes, &memory) == PIPELLM_OK, "no device memory");
  return memory;
}

void* Gpu::pinned_memory(std::uint64_t nbytes) {
  void* memory = nullptr;
  require(api().host_alloc(api().self, nbytes, &memory) == PIPELLM_OK, "no pinned memory");
  return memory;
}

std::int64_t Gpu::stream() {
  std::int64_t stream = 0;
  require(api().stream_create(api().self, 0, &stream) == PIPELLM_OK, "no stream");
  return stream;
}

void Gpu::require_lost(int status) {
  require(status == PIPELLM_CONTEXT_LOST, "status " + std::to_string(status) + ", not a lost context");
  require(last_error().find("the context is lost") != std::string::npos, last_error());
}

#ifdef __SANITIZE_THREAD__

Memory::Memory(Gpu& gpu, std::size_t nbytes)
    : gpu_(gpu), nbytes_(nbytes), data_(gpu.pinned_memory(nbytes)) {
  std::memset(data_, 0x5A, nbytes_);
}

Memory::~Memory() = default;  // the driver may have gone before

void Memory::give_back() {
  mapped_ = false;
  require(gpu_.api().host_free(gpu_.api().self, data_) == PIPELLM_OK, gpu_.last_error());
}

#else

Memory::Memory(Gpu& gpu, std::size_t nbytes)
    : gpu_(gpu),
      nbytes_(nbytes),
      data_(mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
  require(data_ != MAP_FAILED, "no memory");
  std::memset(data_, 0x5A, nbytes_);
  require(gpu_.api().host_register(gpu_.api().self, data_, nbytes_) == PIPELLM_OK,
          gpu_.last_error());
}

Memory::~Memory() {
  if (mapped_) munmap(data_, nbytes_);
}

void Memory::give_back() {
  mapped_ = false;
  // Nobody else gets the address before the driver has forgotten it.
  mprotect(data_, nbytes_, PROT_NONE);
  gpu_.api().host_unregister(gpu_.api().self, data_);
  munmap(data_, nbytes_);
}

#endif

}  // namespace pipellm::stress
