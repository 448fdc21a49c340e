// How a function of libcudart is put before the one of that name in libcudart.
#pragma once

#include "cudart/copies.h"

#define PIPELLM_EXPORT extern "C" __attribute__((visibility("default")))

namespace pipellm::cudart {

using Size = std::size_t;

// What stream 0 means in the functions whose names end in _ptsz or _ptds.
inline Stream own_default(Stream stream) {
  return stream == legacy_stream() ? per_thread_stream() : stream;
}

// Until all that `stream` vouches for is in host memory.
inline void wait_before(Stream stream) {
  Copies* const copies = Copies::active();
  if (copies == nullptr || !copies->owed().anything()) return;
  copies->owed().wait(copies->owed().of(Copies::lane(stream)));
}

inline void may_write_host(Error error, Stream stream) {
  Copies* const copies = Copies::active();
  if (error == kSuccess && copies != nullptr) copies->may_write_host(stream);
}

inline void wait_for_all() {
  Copies* const copies = Copies::active();
  if (copies != nullptr && copies->owed().anything()) copies->owed().wait(copies->owed().all());
}

}  // namespace pipellm::cudart
