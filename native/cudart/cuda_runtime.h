// The CUDA runtime as this library needs it: a few types, and the functions that were there before.
//
// Declared here, so that no CUDA headers are needed to build: the C interface has been the same since
// CUDA 11, under names that carry libcudart's version (`cudaMemcpyAsync@libcudart.so.13`). A symbol
// without a version, preloaded, stands for it in every version.
#pragma once

#include <cstddef>

namespace pipellm::cudart {

using Error = int;
using Stream = struct CUstream_st*;
using Event = struct CUevent_st*;

inline constexpr Error kSuccess = 0, kCudartUnloading = 4, kNotReady = 600;
enum Kind : int { kHostToHost = 0, kHostToDevice = 1, kDeviceToHost = 2, kDeviceToDevice = 3 };
inline constexpr unsigned kNonBlocking = 1;         // cudaStreamNonBlocking
inline constexpr unsigned kEventDisableTiming = 2;  // cudaEventDisableTiming
inline constexpr unsigned kHostAllocMapped = 2;     // cudaHostAllocMapped
inline constexpr int kCaptureNone = 0;              // cudaStreamCaptureStatusNone
inline constexpr int kCaptureModeRelaxed = 2;       // cudaStreamCaptureModeRelaxed

// Handles that stand for streams which nobody created.
inline Stream legacy_stream() { return nullptr; }
inline Stream legacy_stream_by_name() { return reinterpret_cast<Stream>(1); }
inline Stream per_thread_stream() { return reinterpret_cast<Stream>(2); }

// The function of that name that the program would have called without us; ends the process if there
// is none, which only a call of it can bring about.
void* original(const char* name);

// original("name") as what it is, looked up once.
#define PIPELLM_ORIGINAL(name, ...)                                         \
  ([] {                                                                     \
    static auto* const found =                                              \
        reinterpret_cast<::pipellm::cudart::Error (*)(__VA_ARGS__)>(       \
            ::pipellm::cudart::original(#name));                           \
    return found;                                                           \
  }())

// What this library calls itself, always on its own account.
namespace cuda {

int runtime_version();  // 13000 is 13.0
Error get_device(int* device);
Error set_device(int device);
Error malloc(void** memory, std::size_t nbytes);
Error memcpy_async(void* to, const void* from, std::size_t nbytes, int kind, Stream stream);
Error stream_create(Stream* stream, unsigned flags);
Error stream_flags(Stream stream, unsigned* flags);
Error stream_is_capturing(Stream stream, int* status);
Error stream_synchronize(Stream stream);
Error stream_wait_event(Stream stream, Event event);
Error event_create(Event* event);  // without timing
Error event_record(Event event, Stream stream);
Error event_query(Event event);
Error get_last_error();

// While this lives, the calling thread's calls do not disturb a capture that is under way somewhere.
class CaptureRelaxed {
 public:
  CaptureRelaxed();
  ~CaptureRelaxed();
  CaptureRelaxed(const CaptureRelaxed&) = delete;
  CaptureRelaxed& operator=(const CaptureRelaxed&) = delete;

 private:
  int mode_ = kCaptureModeRelaxed;
};

}  // namespace cuda

}  // namespace pipellm::cudart
