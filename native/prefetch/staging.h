// Host memory in which what crosses in one transfer is put together.
#pragma once

#include <cstdint>

namespace pipellm::prefetch {

// In huge pages where the system has them: the kernel copies to these as fast as memcpy. A forked child
// has none of it.
class Staging {
 public:
  explicit Staging(std::uint64_t nbytes);  // throws std::bad_alloc
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  std::uint8_t* data() const { return data_; }
  std::uint64_t nbytes() const { return nbytes_; }

 private:
  std::uint8_t* data_;
  const std::uint64_t nbytes_;
};

}  // namespace pipellm::prefetch
