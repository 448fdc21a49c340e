// What keeps a stream waiting until a thread of ours has done its part: a word of device memory that
// the stream waits for, and that we write.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "prefetch/below.h"

namespace pipellm::prefetch {

struct Gate {
  std::uint32_t* word;  // on the device
  std::uint32_t value;
  std::atomic<bool> arrived{false};  // for certain: nobody need wait for it any more
};

// Internally locked. Outlives its gates.
class Gates {
 public:
  explicit Gates(Below& below) : below_(below) {}
  // By a thread of the program's: takes the words from the driver, unless it has them.
  void open(std::int64_t stream);
  void close();  // gives the words back to the driver, unless one is in use
  std::uint64_t held() const;  // bytes of the device

  // A word is used again when nobody has its gate any more. nullptr: there is none.
  std::shared_ptr<Gate> take();
  void wait(const Gate& gate, std::int64_t stream);
  // The bytes are there as soon as `stream` has come this far.
  void pass(const Gate& gate, std::int64_t stream);

 private:
  Below& below_;
  mutable std::mutex mutex_;  // guards all below
  std::uint32_t* words_ = nullptr;
  std::vector<std::pair<std::uint32_t*, std::uint32_t>> free_;  // with the last value written
};

}  // namespace pipellm::prefetch
