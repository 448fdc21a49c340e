// A GPU's driver, as its users see it: a C table in the manner of the CUDA runtime.
//
// The torch backend (built on the user's machine against the installed torch) is its client; it knows
// neither Python nor the C++ of a driver, only this header. A *layer* (layer.h) is such a table over
// such a table, and what lies lowest is the emulated GPU. Two of the entries, `copy` and `sync`, are the
// *copy seam*: every byte between host and device passes through `copy`.
//
// Every entry may be called from any thread without the GIL. Every entry returns a Status, whose
// numbers are cudaError_t's; `last_error` then tells the calling thread what happened, in one line.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PIPELLM_DRIVER_ABI 4u

enum PipellmStatus {
  PIPELLM_OK = 0,
  PIPELLM_INVALID_VALUE = 1,
  PIPELLM_OUT_OF_MEMORY = 2,
  PIPELLM_INVALID_DEVICE = 101,
  PIPELLM_OPERATING_SYSTEM = 304,  // a system call failed; the context is whole
  PIPELLM_INVALID_HANDLE = 400,
  PIPELLM_NOT_READY = 600,      // a query's "not yet"; no error text
  PIPELLM_CONTEXT_LOST = 719,   // sticky: a message failed authentication, or the process forked
  PIPELLM_NOT_PERMITTED = 800,  // one direction's message counter is used up; the other goes on
  PIPELLM_NOT_SUPPORTED = 801,  // cudaHostRegister under confidential computing (facts: protocol)
  PIPELLM_UNKNOWN = 999,        // a fault of the driver or its runtime; the context is whole
};

enum PipellmDirection { PIPELLM_H2D = 0, PIPELLM_D2H = 1 };

// One host-device copy of contiguous bytes, cudaMemcpyAsync when `asynchronous`, else the same
// followed by cudaStreamSynchronize. The driver itself knows which host memory is pinned, and an
// `asynchronous` copy of pageable memory behaves as CUDA's does.
typedef struct PipellmCopy {
  int32_t device;
  int32_t direction;    // PipellmDirection
  void* destination;
  const void* source;
  uint64_t nbytes;
  int32_t asynchronous;
  int32_t reserved;
  int64_t stream;       // 0 is the device's default stream
  // Keeps both buffers alive until the bytes have really moved. `release(token)` is called exactly
  // once, whether the copy succeeds or not, always on a thread that is inside a driver entry (never
  // on a thread of the driver's own) and holds no lock of the driver's: it may free device memory,
  // and may take the GIL. Both may be NULL.
  void* token;
  void (*release)(void* token);
} PipellmCopy;

// One copy between two places of a device's memory, which do not overlap.
typedef struct PipellmDeviceCopy {
  void* destination;
  const void* source;
  uint64_t nbytes;
} PipellmDeviceCopy;

enum PipellmScope { PIPELLM_SYNC_STREAM = 0, PIPELLM_SYNC_DEVICE = 1 };

typedef struct PipellmMemoryInfo {
  uint64_t total, allocated;  // bytes, `allocated` in units of 512
} PipellmMemoryInfo;

typedef struct PipellmDriver {
  uint32_t abi;  // PIPELLM_DRIVER_ABI; a client built for another number must refuse
  uint32_t size; // sizeof(PipellmDriver)
  void* self;    // first argument of every entry

  const char* (*last_error)(void* self);
  // These do not count as using a device: a fork after them is harmless. Nor does `is_pinned`.
  int (*device_count)(void* self);
  // 1 in a child of a process that had already used the device: CUDA refuses to go on there.
  int (*in_bad_fork)(void* self);
  int (*confidential)(void* self);

  // Memory, aligned to 512 bytes. Device memory is counted against the device's size. Freeing NULL is
  // allowed, and freeing anything is harmless after a fork or with a lost context.
  int (*malloc)(void* self, int32_t device, uint64_t nbytes, void** out);
  int (*free)(void* self, void* pointer);
  int (*host_alloc)(void* self, uint64_t nbytes, void** out);  // pinned (cudaHostAlloc)
  int (*host_free)(void* self, void* pointer);
  int (*host_register)(void* self, void* pointer, uint64_t nbytes);
  int (*host_unregister)(void* self, void* pointer);
  // What the program is told. Under confidential computing as shipped, 0 for every pointer.
  int (*is_pinned)(void* self, const void* pointer);
  // The device whose memory `pointer` lies in, or -1.
  int (*device_of)(void* self, const void* pointer);
  int (*memory_info)(void* self, int32_t device, PipellmMemoryInfo* out);

  // The copy seam.
  int (*copy)(void* self, const PipellmCopy* copy);
  int (*sync)(void* self, int32_t device, int32_t scope, int64_t stream);

  // Work on a stream. `launch` is called right before an operator runs on the CPU in the device's
  // name: on return every copy that `stream` must see has really landed, and the host has paid for
  // a kernel launch. `busy` queues modelled work of that many nanoseconds (torch.cuda._sleep).
  int (*launch)(void* self, int32_t device, int64_t stream);
  int (*busy)(void* self, int32_t device, int64_t stream, int64_t nanoseconds);
  // The operator that this thread launched last has run: so many floating-point operations, so many
  // bytes of device memory read and written. NULL where nobody keeps a trace: then nobody counts.
  int (*operated)(void* self, int32_t device, int64_t stream, double flops, uint64_t nbytes);

  // Streams and events, with the device's own (modelled) timeline.
  int (*stream_create)(void* self, int32_t device, int64_t* out);
  int (*stream_query)(void* self, int32_t device, int64_t stream);           // OK or NOT_READY
  int (*event_create)(void* self, int32_t device, void** out);
  int (*event_destroy)(void* self, void* event);
  int (*event_record)(void* self, void* event, int64_t stream);
  int (*event_query)(void* self, void* event);                               // OK or NOT_READY
  int (*event_synchronize)(void* self, void* event);
  int (*event_elapsed)(void* self, void* start, void* end, double* milliseconds);
  int (*stream_wait_event)(void* self, int32_t device, int64_t stream, void* event);

  // Device memory alone. Each is put on the stream and returns. `copy_on_device` is
  // cudaMemcpyBatchAsync: so many copies for the price of one launch, in no order among themselves.
  // `fill` is cudaMemsetAsync.
  int (*copy_on_device)(void* self, int32_t device, int64_t stream, const PipellmDeviceCopy* copies,
                        uint64_t count);
  int (*fill)(void* self, int32_t device, int64_t stream, void* destination, int32_t byte,
              uint64_t nbytes);
  // cuStreamWriteValue32, and cuStreamWaitValue32 with CU_STREAM_WAIT_VALUE_GEQ: until `word`, an
  // aligned word of device memory, is at least `value`, as a signed difference. The emulated device
  // notices such a write only; what else changes the word, a wait may or may not see.
  int (*stream_write_value)(void* self, int32_t device, int64_t stream, void* word, uint32_t value);
  int (*stream_wait_value)(void* self, int32_t device, int64_t stream, const void* word,
                           uint32_t value);
} PipellmDriver;

#ifdef __cplusplus
}
#endif
