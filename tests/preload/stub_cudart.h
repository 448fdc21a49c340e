// A CUDA runtime without a GPU, for the preload library's tests. Its device is a thread that does, in
// random order, whatever the streams allow next; it keeps to CUDA's rules, and where they leave
// something open it does what is hardest for a program.
//
// With STUB_CC=on it behaves as under confidential computing: a copy from or to pinned memory blocks
// its caller until the stream has drained. (Otherwise it returns at once, and the source is read when
// the device comes to it.)
#pragma once

#include <cstddef>

using Error = int;
using Stream = struct CUstream_st*;
using Event = struct CUevent_st*;

inline constexpr Error kInvalidValue = 1, kNotReady = 600;
inline constexpr int kH2D = 1, kD2H = 2;

extern "C" {
Error cudaRuntimeGetVersion(int* version);
Error cudaGetDevice(int* device);
Error cudaSetDevice(int device);
Error cudaMalloc(void** memory, std::size_t nbytes);
Error cudaFree(void* memory);
Error cudaHostAlloc(void** memory, std::size_t nbytes, unsigned flags);
Error cudaMallocHost(void** memory, std::size_t nbytes);
Error cudaFreeHost(void* memory);
Error cudaHostGetDevicePointer(void** device, void* memory, unsigned flags);
Error cudaMemcpy(void* to, const void* from, std::size_t nbytes, int kind);
Error cudaMemcpyAsync(void* to, const void* from, std::size_t nbytes, int kind, Stream stream);
Error cudaMemcpyAsync_ptsz(void* to, const void* from, std::size_t nbytes, int kind,
                           Stream stream);
Error cudaMemsetAsync(void* to, int value, std::size_t nbytes, Stream stream);
Error cudaStreamCreateWithFlags(Stream* stream, unsigned flags);
Error cudaStreamGetFlags(Stream stream, unsigned* flags);
Error cudaStreamIsCapturing(Stream stream, int* status);
Error cudaStreamBeginCapture(Stream stream, int mode);
Error cudaStreamEndCapture(Stream stream, void** graph);
Error cudaThreadExchangeStreamCaptureMode(int* mode);
Error cudaGraphLaunch(void* graph, Stream stream);
Error cudaStreamSynchronize(Stream stream);
Error cudaStreamSynchronize_ptsz(Stream stream);
Error cudaStreamQuery(Stream stream);
Error cudaStreamWaitEvent(Stream stream, Event event, unsigned flags);
Error cudaLaunchHostFunc(Stream stream, void (*function)(void*), void* data);
Error cudaEventCreateWithFlags(Event* event, unsigned flags);
Error cudaEventRecord(Event event, Stream stream);
Error cudaEventSynchronize(Event event);
Error cudaEventQuery(Event event);
Error cudaEventElapsedTime(float* milliseconds, Event start, Event end);
Error cudaEventDestroy(Event event);
Error cudaDeviceSynchronize();
Error cudaDeviceReset();
Error cudaGetLastError();
Error cudaPeekAtLastError();

// A kernel that no function of the runtime launches, as cuBLAS does it:
// each byte of `to` becomes 31 times itself, plus that of `from`, plus `number`.
void stub_kernel(void* to, const void* from, std::size_t nbytes, int number, Stream stream);
// Work on a stream that does not end before stub_release().
void stub_hold(Stream stream);
void stub_release();
// While on, no copy to host memory comes to its end.
void stub_hold_copies_to_host(int on);
// The calling thread waited for work that was held: with a GPU it would wait for ever. (Here, that
// lets go of what was held.)
int stub_stalls();
// Copies so far of that kind (cudaMemcpyKind), by this thread or by all.
int stub_copies(int kind, int by_this_thread);
// The next copy of that kind fails with that error.
void stub_fail(int kind, Error error);
}
