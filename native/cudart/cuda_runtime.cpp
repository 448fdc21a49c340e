#include "cudart/cuda_runtime.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <initializer_list>

namespace pipellm::cudart {

namespace {

// Where libcudart came with a library that was itself opened with RTLD_LOCAL, as Python opens its
// modules, RTLD_NEXT does not find it.
void* loaded_runtime() {
  for (const char* name : {"libcudart.so.13", "libcudart.so.12"}) {
    if (void* library = dlopen(name, RTLD_NOLOAD | RTLD_LAZY)) return library;
  }
  return nullptr;
}

}  // namespace

void* original(const char* name) {
  void* found = dlsym(RTLD_NEXT, name);
  if (found == nullptr) {
    static void* const runtime = loaded_runtime();
    if (runtime != nullptr) found = dlsym(runtime, name);
  }
  if (found == nullptr) {
    std::fprintf(stderr,
                 "pipellm: %s was called, and no libcudart.so.13 or .12 in this process has it; run "
                 "the program without --attach cudart\n",
                 name);
    std::abort();
  }
  return found;
}

namespace cuda {

int runtime_version() {
  int version = 0;
  PIPELLM_ORIGINAL(cudaRuntimeGetVersion, int*)(&version);
  return version;
}
Error get_device(int* device) { return PIPELLM_ORIGINAL(cudaGetDevice, int*)(device); }
Error set_device(int device) { return PIPELLM_ORIGINAL(cudaSetDevice, int)(device); }
Error malloc(void** memory, std::size_t nbytes) {
  return PIPELLM_ORIGINAL(cudaMalloc, void**, std::size_t)(memory, nbytes);
}
Error memcpy_async(void* to, const void* from, std::size_t nbytes, int kind, Stream stream) {
  return PIPELLM_ORIGINAL(cudaMemcpyAsync, void*, const void*, std::size_t, int,
                          Stream)(to, from, nbytes, kind, stream);
}
Error stream_create(Stream* stream, unsigned flags) {
  return PIPELLM_ORIGINAL(cudaStreamCreateWithFlags, Stream*, unsigned)(stream, flags);
}
Error stream_flags(Stream stream, unsigned* flags) {
  return PIPELLM_ORIGINAL(cudaStreamGetFlags, Stream, unsigned*)(stream, flags);
}
Error stream_is_capturing(Stream stream, int* status) {
  return PIPELLM_ORIGINAL(cudaStreamIsCapturing, Stream, int*)(stream, status);
}
Error stream_synchronize(Stream stream) {
  return PIPELLM_ORIGINAL(cudaStreamSynchronize, Stream)(stream);
}
Error stream_wait_event(Stream stream, Event event) {
  return PIPELLM_ORIGINAL(cudaStreamWaitEvent, Stream, Event, unsigned)(stream, event, 0);
}
Error event_create(Event* event) {
  return PIPELLM_ORIGINAL(cudaEventCreateWithFlags, Event*, unsigned)(event, kEventDisableTiming);
}
Error event_record(Event event, Stream stream) {
  return PIPELLM_ORIGINAL(cudaEventRecord, Event, Stream)(event, stream);
}
Error event_query(Event event) { return PIPELLM_ORIGINAL(cudaEventQuery, Event)(event); }
Error get_last_error() { return PIPELLM_ORIGINAL(cudaGetLastError)(); }

CaptureRelaxed::CaptureRelaxed() {
  PIPELLM_ORIGINAL(cudaThreadExchangeStreamCaptureMode, int*)(&mode_);
}
CaptureRelaxed::~CaptureRelaxed() {
  PIPELLM_ORIGINAL(cudaThreadExchangeStreamCaptureMode, int*)(&mode_);
}

}  // namespace cuda

}  // namespace pipellm::cudart
