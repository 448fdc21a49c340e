#include "stub_cudart.h"

#include <algorithm>
#include <utility>

#include "stub_device.h"

namespace {

thread_local int current_device = 0, capture_mode = 0;
thread_local std::map<int, int> copies_here;

bool inside(const std::map<const char*, std::size_t>& blocks, const void* memory,
            std::size_t nbytes) {
  const auto* start = static_cast<const char*>(memory);
  auto block = blocks.upper_bound(start);
  if (block == blocks.begin()) return false;
  --block;
  return start + nbytes <= block->first + block->second;
}

Error copy(void* to, const void* from, std::size_t nbytes, int kind, Stream handle, bool own_default,
           bool blocking) {
  if (!usable()) return fail(kUnusable);
  Gpu& g = gpu();
  std::unique_lock lock(g.mutex);
  const Stream stream = resolve(handle, own_default);
  ++g.copies[kind];
  ++copies_here[kind];
  if (const Error error = std::exchange(g.to_fail[kind], 0)) return fail(error);
  const bool to_device = kind != kD2H, from_device = kind != kH2D;
  if (to_device != inside(g.device_memory, to, nbytes) ||
      from_device != inside(g.device_memory, from, nbytes)) {
    return fail(kInvalidValue);
  }
  if (stream->capturing) {
    g.captured.push_back([=] { std::memcpy(to, from, nbytes); });
    return 0;
  }
  const bool pinned = inside(g.host_memory, to_device ? from : to, nbytes);
  const bool by_host = to_device != from_device;
  Op properties;
  properties.to_host = !to_device;
  if (by_host && to_device && !pinned) {  // read before the call returns
    auto taken = std::make_shared<std::vector<char>>(static_cast<const char*>(from),
                                                     static_cast<const char*>(from) + nbytes);
    submit(stream, [=] { std::memcpy(to, taken->data(), nbytes); });
    return 0;
  }
  const OpPointer op = submit(stream, [=] { std::memcpy(to, from, nbytes); }, properties);
  if (by_host && (blocking || !pinned || g.copies_block)) wait(lock, op);
  return 0;
}

template <typename Work>
Error on_device(Work work) {
  if (!usable()) return fail(kUnusable);
  std::unique_lock lock(gpu().mutex);
  return work(lock);
}

Error drain(std::unique_lock<std::mutex>& lock) {
  while (!gpu().waiting.empty()) wait(lock, OpPointer(gpu().waiting.front()));
  return 0;
}

Error wait_for_stream(std::unique_lock<std::mutex>& lock, Stream stream) {
  for (const OpPointer& op : of(stream)) wait(lock, op);
  return 0;
}

Error query(const OpPointer& op) { return !op || op->done ? 0 : fail(kNotReady); }

Error allocate(std::map<const char*, std::size_t>& blocks, void** memory, std::size_t nbytes) {
  *memory = std::aligned_alloc(512, (nbytes + 511) / 512 * 512);
  std::memset(*memory, 0xee, nbytes);
  blocks[static_cast<char*>(*memory)] = nbytes;
  return 0;
}

Error release(std::unique_lock<std::mutex>& lock, std::map<const char*, std::size_t>& blocks,
              void* memory) {
  drain(lock);
  if (memory == nullptr) return 0;
  if (blocks.erase(static_cast<char*>(memory)) == 0) return fail(kInvalidValue);
  std::free(memory);
  return 0;
}

}  // namespace

Error cudaRuntimeGetVersion(int* version) { return *version = 13000, 0; }
Error cudaGetDevice(int* device) { return *device = current_device, usable() ? 0 : kUnusable; }
Error cudaSetDevice(int device) { return current_device = device, 0; }

Error cudaMalloc(void** memory, std::size_t nbytes) {
  return on_device([&](auto&) {
    // Not allowed to a thread that does not say so while somebody captures a graph.
    if (gpu().capturing_somewhere && capture_mode != 2) return fail(900);
    return allocate(gpu().device_memory, memory, nbytes);
  });
}
Error cudaFree(void* memory) {
  return on_device([&](auto& lock) { return release(lock, gpu().device_memory, memory); });
}
Error cudaHostAlloc(void** memory, std::size_t nbytes, unsigned) {
  return on_device([&](auto&) { return allocate(gpu().host_memory, memory, nbytes); });
}
Error cudaMallocHost(void** memory, std::size_t nbytes) {
  return on_device([&](auto&) { return allocate(gpu().host_memory, memory, nbytes); });
}
Error cudaFreeHost(void* memory) {
  return on_device([&](auto& lock) { return release(lock, gpu().host_memory, memory); });
}
Error cudaHostGetDevicePointer(void** device, void* memory, unsigned) {
  return *device = memory, 0;
}

Error cudaMemcpy(void* to, const void* from, std::size_t nbytes, int kind) {
  return copy(to, from, nbytes, kind, nullptr, false, true);
}
Error cudaMemcpyAsync(void* to, const void* from, std::size_t nbytes, int kind, Stream stream) {
  return copy(to, from, nbytes, kind, stream, false, false);
}
Error cudaMemcpyAsync_ptsz(void* to, const void* from, std::size_t nbytes, int kind,
                           Stream stream) {
  return copy(to, from, nbytes, kind, stream, true, false);
}
Error cudaMemsetAsync(void* to, int value, std::size_t nbytes, Stream stream) {
  return on_device([&](auto&) {
    submit(resolve(stream), [=] { std::memset(to, value, nbytes); });
    return 0;
  });
}

Error cudaStreamCreateWithFlags(Stream* stream, unsigned flags) {
  return on_device([&](auto&) {
    *stream = new CUstream_st{flags != 1, false, nullptr};
    gpu().streams.push_back(*stream);
    return 0;
  });
}
Error cudaStreamGetFlags(Stream stream, unsigned* flags) {
  return on_device([&](auto&) {
    *flags = resolve(stream)->blocking ? 0 : 1;
    return 0;
  });
}
Error cudaStreamIsCapturing(Stream stream, int* status) {
  return on_device([&](auto&) {
    *status = resolve(stream)->capturing;
    return 0;
  });
}
Error cudaStreamBeginCapture(Stream stream, int) {
  return on_device([&](auto&) {
    resolve(stream)->capturing = gpu().capturing_somewhere = true;
    gpu().captured.clear();
    return 0;
  });
}
Error cudaStreamEndCapture(Stream stream, void** graph) {
  return on_device([&](auto&) {
    resolve(stream)->capturing = gpu().capturing_somewhere = false;
    *graph = new Graph(gpu().captured);
    return 0;
  });
}
Error cudaThreadExchangeStreamCaptureMode(int* mode) { return std::swap(capture_mode, *mode), 0; }
Error cudaGraphLaunch(void* graph, Stream stream) {
  return on_device([&](auto&) {
    for (const auto& work : *static_cast<Graph*>(graph)) submit(resolve(stream), work);
    return 0;
  });
}

Error cudaStreamSynchronize(Stream stream) {
  return on_device([&](auto& lock) { return wait_for_stream(lock, resolve(stream)); });
}
Error cudaStreamSynchronize_ptsz(Stream stream) {
  return on_device([&](auto& lock) { return wait_for_stream(lock, resolve(stream, true)); });
}
Error cudaStreamQuery(Stream stream) {
  return on_device([&](auto&) {
    for (const OpPointer& op : of(resolve(stream))) {
      if (!op->done) return fail(kNotReady);
    }
    return 0;
  });
}
Error cudaStreamWaitEvent(Stream stream, Event event, unsigned) {
  return on_device([&](auto&) {
    const OpPointer awaited = event->op;
    const OpPointer op = submit(resolve(stream), nullptr);
    if (awaited) op->after.push_back(awaited);
    return 0;
  });
}
Error cudaLaunchHostFunc(Stream stream, void (*function)(void*), void* data) {
  return on_device([&](auto&) {
    submit(resolve(stream), [=] { function(data); });
    return 0;
  });
}

Error cudaEventCreateWithFlags(Event* event, unsigned) { return *event = new CUevent_st, 0; }
Error cudaEventRecord(Event event, Stream stream) {
  return on_device([&](auto&) {
    event->op = submit(resolve(stream), nullptr);
    return 0;
  });
}
Error cudaEventSynchronize(Event event) {
  return on_device([&](auto& lock) {
    wait(lock, event->op);
    return 0;
  });
}
Error cudaEventQuery(Event event) {
  return on_device([&](auto&) { return query(event->op); });
}
Error cudaEventElapsedTime(float* milliseconds, Event start, Event end) {
  return on_device([&](auto&) {
    *milliseconds = 1;
    const Error error = query(start->op);
    return error != 0 ? error : query(end->op);
  });
}
Error cudaEventDestroy(Event event) { return delete event, 0; }

Error cudaDeviceSynchronize() {
  return on_device([&](auto& lock) { return drain(lock); });
}
Error cudaDeviceReset() {
  return on_device([&](auto& lock) {
    drain(lock);
    for (const auto& [memory, nbytes] : gpu().device_memory) {
      (void)nbytes;
      std::free(const_cast<char*>(memory));
    }
    gpu().device_memory.clear();
    return 0;
  });
}
Error cudaGetLastError() { return std::exchange(last_error, 0); }
Error cudaPeekAtLastError() { return last_error; }

void stub_kernel(void* to, const void* from, std::size_t nbytes, int number, Stream stream) {
  on_device([&](auto&) {
    submit(resolve(stream), [=] {
      auto* out = static_cast<unsigned char*>(to);
      const auto* in = static_cast<const unsigned char*>(from);
      for (std::size_t i = 0; i < nbytes; ++i) {
        out[i] = static_cast<unsigned char>(out[i] * 31 + in[i] + number);
      }
    });
    return 0;
  });
}
void stub_hold(Stream stream) {
  on_device([&](auto&) {
    gpu().holding = may_release = true;
    Op held;
    held.held = true;
    submit(resolve(stream), nullptr, held);
    return 0;
  });
}
void stub_release() {
  on_device([&](auto&) {
    gpu().holding = false;
    gpu().changed.notify_all();
    return 0;
  });
}
void stub_hold_copies_to_host(int on) {
  on_device([&](auto&) {
    gpu().holding_copies = on != 0;
    may_release = true;
    gpu().changed.notify_all();
    return 0;
  });
}
int stub_stalls() { return gpu().stalls; }
int stub_copies(int kind, int by_this_thread) {
  const std::lock_guard lock(gpu().mutex);
  return by_this_thread ? copies_here[kind] : gpu().copies[kind];
}
void stub_fail(int kind, Error error) {
  const std::lock_guard lock(gpu().mutex);
  gpu().to_fail[kind] = error;
}
