// What has to wait until earlier copies are in host memory.
//
// All other copies: they may read or write the memory that an earlier one goes to. Graphs, which may
// contain such copies. Host functions and callbacks: they run when the stream has come to them, and
// may read what it copied. And what ends the life of memory or of the context.
//
// A call that names a stream waits for what that stream vouches for, one that does not for what the
// default stream does. And since what comes to a stream here may itself write host memory, later
// copies are told (Copies::may_write_host).
#include "cudart/interpose.h"

using namespace pipellm::cudart;

// PIPELLM_BEFORE(name, the stream, (parameters), (arguments), types...)
#define PIPELLM_BEFORE(name, STREAM, PARAMETERS, ARGUMENTS, ...) \
  PIPELLM_EXPORT Error name PARAMETERS {                         \
    wait_before(STREAM);                                         \
    return PIPELLM_ORIGINAL(name, __VA_ARGS__) ARGUMENTS;        \
  }
#define PIPELLM_BEFORE_AND_AFTER(name, STREAM, PARAMETERS, ARGUMENTS, ...)    \
  PIPELLM_EXPORT Error name PARAMETERS {                                      \
    wait_before(STREAM);                                                      \
    const Error error = PIPELLM_ORIGINAL(name, __VA_ARGS__) ARGUMENTS;        \
    may_write_host(error, STREAM);                                            \
    return error;                                                             \
  }
#define PIPELLM_BEFORE_ALL(name, PARAMETERS, ARGUMENTS, ...) \
  PIPELLM_EXPORT Error name PARAMETERS {                     \
    wait_for_all();                                          \
    return PIPELLM_ORIGINAL(name, __VA_ARGS__) ARGUMENTS;    \
  }

// A function that returns when it is done, in its two versions.
#define PIPELLM_BLOCKING(name, PARAMETERS, ARGUMENTS, ...)                                     \
  PIPELLM_BEFORE(name, legacy_stream(), PARAMETERS, ARGUMENTS, __VA_ARGS__)                    \
  PIPELLM_BEFORE(name##_ptds, per_thread_stream(), PARAMETERS, ARGUMENTS, __VA_ARGS__)
// A function with a parameter `stream`, likewise.
#define PIPELLM_ON_STREAM(name, PARAMETERS, ARGUMENTS, ...)                                    \
  PIPELLM_BEFORE_AND_AFTER(name, stream, PARAMETERS, ARGUMENTS, __VA_ARGS__)                   \
  PIPELLM_BEFORE_AND_AFTER(name##_ptsz, own_default(stream), PARAMETERS, ARGUMENTS, __VA_ARGS__)

PIPELLM_BLOCKING(cudaMemcpy, (void* to, const void* from, Size nbytes, int kind),
                 (to, from, nbytes, kind), void*, const void*, Size, int)
PIPELLM_BLOCKING(cudaMemcpy2D,
                 (void* to, Size to_pitch, const void* from, Size pitch, Size width, Size height,
                  int kind),
                 (to, to_pitch, from, pitch, width, height, kind), void*, Size, const void*, Size,
                 Size, Size, int)
PIPELLM_ON_STREAM(cudaMemcpy2DAsync,
                  (void* to, Size to_pitch, const void* from, Size pitch, Size width, Size height,
                   int kind, Stream stream),
                  (to, to_pitch, from, pitch, width, height, kind, stream), void*, Size,
                  const void*, Size, Size, Size, int, Stream)
PIPELLM_BLOCKING(cudaMemcpy3D, (const void* parameters), (parameters), const void*)
PIPELLM_ON_STREAM(cudaMemcpy3DAsync, (const void* parameters, Stream stream), (parameters, stream),
                  const void*, Stream)
PIPELLM_BLOCKING(cudaMemcpy2DToArray,
                 (void* array, Size x, Size y, const void* from, Size pitch, Size width,
                  Size height, int kind),
                 (array, x, y, from, pitch, width, height, kind), void*, Size, Size, const void*,
                 Size, Size, Size, int)
PIPELLM_ON_STREAM(cudaMemcpy2DToArrayAsync,
                  (void* array, Size x, Size y, const void* from, Size pitch, Size width,
                   Size height, int kind, Stream stream),
                  (array, x, y, from, pitch, width, height, kind, stream), void*, Size, Size,
                  const void*, Size, Size, Size, int, Stream)
PIPELLM_BLOCKING(cudaMemcpy2DFromArray,
                 (void* to, Size pitch, const void* array, Size x, Size y, Size width, Size height,
                  int kind),
                 (to, pitch, array, x, y, width, height, kind), void*, Size, const void*, Size,
                 Size, Size, Size, int)
PIPELLM_ON_STREAM(cudaMemcpy2DFromArrayAsync,
                  (void* to, Size pitch, const void* array, Size x, Size y, Size width,
                   Size height, int kind, Stream stream),
                  (to, pitch, array, x, y, width, height, kind, stream), void*, Size, const void*,
                  Size, Size, Size, Size, int, Stream)
PIPELLM_BLOCKING(cudaMemcpyToArray,
                 (void* array, Size x, Size y, const void* from, Size nbytes, int kind),
                 (array, x, y, from, nbytes, kind), void*, Size, Size, const void*, Size, int)
PIPELLM_ON_STREAM(cudaMemcpyToArrayAsync,
                  (void* array, Size x, Size y, const void* from, Size nbytes, int kind,
                   Stream stream),
                  (array, x, y, from, nbytes, kind, stream), void*, Size, Size, const void*, Size,
                  int, Stream)
PIPELLM_BLOCKING(cudaMemcpyFromArray,
                 (void* to, const void* array, Size x, Size y, Size nbytes, int kind),
                 (to, array, x, y, nbytes, kind), void*, const void*, Size, Size, Size, int)
PIPELLM_ON_STREAM(cudaMemcpyFromArrayAsync,
                  (void* to, const void* array, Size x, Size y, Size nbytes, int kind,
                   Stream stream),
                  (to, array, x, y, nbytes, kind, stream), void*, const void*, Size, Size, Size,
                  int, Stream)
PIPELLM_BLOCKING(cudaMemcpyToSymbol,
                 (const void* symbol, const void* from, Size nbytes, Size offset, int kind),
                 (symbol, from, nbytes, offset, kind), const void*, const void*, Size, Size, int)
PIPELLM_ON_STREAM(cudaMemcpyToSymbolAsync,
                  (const void* symbol, const void* from, Size nbytes, Size offset, int kind,
                   Stream stream),
                  (symbol, from, nbytes, offset, kind, stream), const void*, const void*, Size,
                  Size, int, Stream)
PIPELLM_BLOCKING(cudaMemcpyFromSymbol,
                 (void* to, const void* symbol, Size nbytes, Size offset, int kind),
                 (to, symbol, nbytes, offset, kind), void*, const void*, Size, Size, int)
PIPELLM_ON_STREAM(cudaMemcpyFromSymbolAsync,
                  (void* to, const void* symbol, Size nbytes, Size offset, int kind,
                   Stream stream),
                  (to, symbol, nbytes, offset, kind, stream), void*, const void*, Size, Size, int,
                  Stream)

// Since CUDA 13 they have one argument less, before the flags or the stream. All are words, so as
// many as there ever were are handed on, and a callee that wants fewer does not look at the rest.
using Word = void*;

namespace {

Stream last_of(Word before, Word since_13) {
  static const bool has_13 = cuda::runtime_version() >= 13000;
  return static_cast<Stream>(has_13 ? since_13 : before);
}

}  // namespace

#define PIPELLM_BATCH(name, BEFORE, SINCE_13, STREAM)                                       \
  PIPELLM_BEFORE_AND_AFTER(name, STREAM(last_of(BEFORE, SINCE_13)),                         \
                           (Word a, Word b, Word c, Word d, Word e, Word f, Word g, Word h, \
                            Word i),                                                        \
                           (a, b, c, d, e, f, g, h, i), Word, Word, Word, Word, Word, Word, \
                           Word, Word, Word)
PIPELLM_BATCH(cudaMemcpyBatchAsync, i, h, )
PIPELLM_BATCH(cudaMemcpyBatchAsync_ptsz, i, h, own_default)
PIPELLM_BATCH(cudaMemcpy3DBatchAsync, e, d, )
PIPELLM_BATCH(cudaMemcpy3DBatchAsync_ptsz, e, d, own_default)

PIPELLM_ON_STREAM(cudaGraphLaunch, (void* graph, Stream stream), (graph, stream), void*, Stream)
PIPELLM_ON_STREAM(cudaLaunchHostFunc, (Stream stream, void (*function)(void*), void* data),
                  (stream, function, data), Stream, void (*)(void*), void*)
PIPELLM_ON_STREAM(cudaStreamAddCallback,
                  (Stream stream, void (*function)(Stream, Error, void*), void* data,
                   unsigned flags),
                  (stream, function, data, flags), Stream, void (*)(Stream, Error, void*), void*,
                  unsigned)

PIPELLM_BEFORE_ALL(cudaFree, (void* memory), (memory), void*)
PIPELLM_BEFORE_ALL(cudaHostUnregister, (void* memory), (memory), void*)

PIPELLM_EXPORT Error cudaDeviceReset() {
  if (Copies* const copies = Copies::active()) copies->reset();
  return PIPELLM_ORIGINAL(cudaDeviceReset)();
}
