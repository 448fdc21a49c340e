// The functions of libcudart that stand here before those of libcudart.
//
// Where confidential computing is off, each only calls the original. Otherwise, by what it has to do
// with a copy that CUDA takes for done and that has not reached host memory yet (owed.h):
//
//   copies         cudaMemcpyAsync: staged, if it is a large one from or to pinned memory
//   wait for it    cudaStreamSynchronize, cudaEventSynchronize, cudaDeviceSynchronize
//   tell of it     cudaStreamQuery, cudaEventQuery, cudaEventElapsedTime: "not ready"
//   hand it on     cudaEventRecord, cudaEventRecordWithFlags, cudaStreamWaitEvent
//   wait before    interpose_before.cpp
//   pinned memory  cudaHostAlloc, cudaMallocHost, cudaFreeHost, cudaHostGetDevicePointer
//   errors         cudaGetLastError, cudaPeekAtLastError
//
// What is not here needs nothing: whatever runs on the device is put on its stream by the program
// itself, behind all that was put there before (copies.h). That includes kernels, memset, the
// stream-ordered allocator, and the making and ending of streams. `_ptsz` and `_ptds` are the same
// functions for programs whose default stream is each thread's own.
#include "cudart/interpose.h"

using namespace pipellm::cudart;

namespace {

Error copy(Copies& copies, void* to, const void* from, Size nbytes, int kind, Stream stream) {
  PipellmCopy request{};
  if (cuda::get_device(&request.device) != kSuccess) request.device = -1;
  request.direction = kind == kHostToDevice ? PIPELLM_H2D : PIPELLM_D2H;
  request.destination = to;
  request.source = from;
  request.nbytes = nbytes;
  request.asynchronous = 1;
  request.stream = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(stream));
  return copies.copy(request);
}

Error synchronize(Error error, PipellmScope scope, Stream stream) {
  Copies* const copies = Copies::active();
  return error != kSuccess || copies == nullptr ? error : copies->sync(scope, stream);
}

// What CUDA says of a stream or an event, unless we know better.
template <typename What>
Error query(Error error, What what) {
  Copies* const copies = Copies::active();
  if (error != kSuccess || copies == nullptr) return error;
  return copies->pending(what) ? kNotReady : copies->owed().take_error();
}

}  // namespace

#define PIPELLM_COPY(name, STREAM)                                                              \
  PIPELLM_EXPORT Error name(void* to, const void* from, Size nbytes, int kind, Stream stream) { \
    Copies* const copies = Copies::active();                                                    \
    if (copies != nullptr && (kind == kHostToDevice || kind == kDeviceToHost)) {                \
      return copy(*copies, to, from, nbytes, kind, STREAM);                                     \
    }                                                                                           \
    if (kind != kDeviceToDevice) wait_before(STREAM);                                           \
    const Error error = PIPELLM_ORIGINAL(name, void*, const void*, Size, int, Stream)(          \
        to, from, nbytes, kind, stream);                                                        \
    if (kind != kDeviceToDevice) may_write_host(error, STREAM);                                 \
    return error;                                                                               \
  }
PIPELLM_COPY(cudaMemcpyAsync, stream)
PIPELLM_COPY(cudaMemcpyAsync_ptsz, own_default(stream))

#define PIPELLM_SYNCHRONIZE(name, STREAM)                                                       \
  PIPELLM_EXPORT Error name(Stream stream) {                                                    \
    return synchronize(PIPELLM_ORIGINAL(name, Stream)(stream), PIPELLM_SYNC_STREAM, STREAM);    \
  }
PIPELLM_SYNCHRONIZE(cudaStreamSynchronize, stream)
PIPELLM_SYNCHRONIZE(cudaStreamSynchronize_ptsz, own_default(stream))

PIPELLM_EXPORT Error cudaDeviceSynchronize() {
  return synchronize(PIPELLM_ORIGINAL(cudaDeviceSynchronize)(), PIPELLM_SYNC_DEVICE, nullptr);
}

PIPELLM_EXPORT Error cudaEventSynchronize(Event event) {
  const Error error = PIPELLM_ORIGINAL(cudaEventSynchronize, Event)(event);
  Copies* const copies = Copies::active();
  return error != kSuccess || copies == nullptr ? error : copies->wait(event);
}

#define PIPELLM_QUERY(name, STREAM)                               \
  PIPELLM_EXPORT Error name(Stream stream) {                      \
    return query(PIPELLM_ORIGINAL(name, Stream)(stream), STREAM); \
  }
PIPELLM_QUERY(cudaStreamQuery, stream)
PIPELLM_QUERY(cudaStreamQuery_ptsz, own_default(stream))

PIPELLM_EXPORT Error cudaEventQuery(Event event) {
  return query(PIPELLM_ORIGINAL(cudaEventQuery, Event)(event), event);
}

PIPELLM_EXPORT Error cudaEventElapsedTime(float* milliseconds, Event start, Event end) {
  Copies* const copies = Copies::active();
  if (copies != nullptr && (copies->pending(start) || copies->pending(end))) return kNotReady;
  return PIPELLM_ORIGINAL(cudaEventElapsedTime, float*, Event, Event)(milliseconds, start, end);
}

#define PIPELLM_RECORD(name, STREAM)                                              \
  PIPELLM_EXPORT Error name(Event event, Stream stream) {                         \
    const Error error = PIPELLM_ORIGINAL(name, Event, Stream)(event, stream);     \
    Copies* const copies = Copies::active();                                      \
    if (error == kSuccess && copies != nullptr) copies->record(event, STREAM);    \
    return error;                                                                 \
  }
PIPELLM_RECORD(cudaEventRecord, stream)
PIPELLM_RECORD(cudaEventRecord_ptsz, own_default(stream))

#define PIPELLM_RECORD_WITH_FLAGS(name, STREAM)                                                \
  PIPELLM_EXPORT Error name(Event event, Stream stream, unsigned flags) {                      \
    const Error error = PIPELLM_ORIGINAL(name, Event, Stream, unsigned)(event, stream, flags); \
    Copies* const copies = Copies::active();                                                   \
    if (error == kSuccess && copies != nullptr) copies->record(event, STREAM);                 \
    return error;                                                                              \
  }
PIPELLM_RECORD_WITH_FLAGS(cudaEventRecordWithFlags, stream)
PIPELLM_RECORD_WITH_FLAGS(cudaEventRecordWithFlags_ptsz, own_default(stream))

#define PIPELLM_WAIT_EVENT(name, STREAM)                                                       \
  PIPELLM_EXPORT Error name(Stream stream, Event event, unsigned flags) {                      \
    const Error error = PIPELLM_ORIGINAL(name, Stream, Event, unsigned)(stream, event, flags); \
    Copies* const copies = Copies::active();                                                   \
    if (error == kSuccess && copies != nullptr) copies->wait_event(STREAM, event);             \
    return error;                                                                              \
  }
PIPELLM_WAIT_EVENT(cudaStreamWaitEvent, stream)
PIPELLM_WAIT_EVENT(cudaStreamWaitEvent_ptsz, own_default(stream))

PIPELLM_EXPORT Error cudaEventDestroy(Event event) {
  Copies* const copies = Copies::active();
  if (copies != nullptr) copies->forget(event);
  return PIPELLM_ORIGINAL(cudaEventDestroy, Event)(event);
}

PIPELLM_EXPORT Error cudaHostAlloc(void** memory, Size nbytes, unsigned flags) {
  const Error error = PIPELLM_ORIGINAL(cudaHostAlloc, void**, Size, unsigned)(memory, nbytes,
                                                                              flags);
  Copies* const copies = Copies::active();
  // Memory that kernels are meant to read and write is left to CUDA altogether.
  if (error == kSuccess && copies != nullptr && (flags & kHostAllocMapped) == 0) {
    copies->pinned().add(*memory, nbytes);
  }
  return error;
}

PIPELLM_EXPORT Error cudaMallocHost(void** memory, Size nbytes) {
  const Error error = PIPELLM_ORIGINAL(cudaMallocHost, void**, Size)(memory, nbytes);
  Copies* const copies = Copies::active();
  if (error == kSuccess && copies != nullptr) copies->pinned().add(*memory, nbytes);
  return error;
}

PIPELLM_EXPORT Error cudaHostGetDevicePointer(void** device, void* memory, unsigned flags) {
  Copies* const copies = Copies::active();
  if (copies != nullptr) {  // likewise, from now on
    copies->pinned().remove(memory);
    wait_for_all();
  }
  return PIPELLM_ORIGINAL(cudaHostGetDevicePointer, void**, void*, unsigned)(device, memory,
                                                                             flags);
}

PIPELLM_EXPORT Error cudaFreeHost(void* memory) {
  Copies* const copies = Copies::active();
  if (copies != nullptr) {
    copies->pinned().remove(memory);
    wait_for_all();
  }
  return PIPELLM_ORIGINAL(cudaFreeHost, void*)(memory);
}

PIPELLM_EXPORT Error cudaGetLastError() {
  const Error error = PIPELLM_ORIGINAL(cudaGetLastError)();
  Copies* const copies = Copies::active();
  return error != kSuccess || copies == nullptr ? error : copies->owed().take_error();
}

PIPELLM_EXPORT Error cudaPeekAtLastError() {
  const Error error = PIPELLM_ORIGINAL(cudaPeekAtLastError)();
  Copies* const copies = Copies::active();
  return error != kSuccess || copies == nullptr ? error : copies->owed().peek_error();
}
