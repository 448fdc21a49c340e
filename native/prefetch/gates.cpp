#include "prefetch/gates.h"

#include <utility>

namespace pipellm::prefetch {

namespace {

constexpr std::size_t kWords = 4096;
constexpr std::uint64_t kBytes = kWords * sizeof(std::uint32_t);

}  // namespace

void Gates::open(std::int64_t stream) {
  if (held() != 0) return;
  const PipellmDriver& table = below_.table();
  void* memory = nullptr;
  // Without memory there are no gates, and every copy goes as it would without us.
  if (table.malloc(table.self, below_.device(), kBytes, &memory) != PIPELLM_OK) return;
  const bool cleared =
      below_.noted(table.fill(table.self, below_.device(), stream, memory, 0, kBytes)) == PIPELLM_OK &&
      below_.noted(table.sync(table.self, below_.device(), PIPELLM_SYNC_STREAM, stream)) == PIPELLM_OK;
  {
    const std::lock_guard lock(mutex_);
    if (cleared && words_ == nullptr) {
      words_ = static_cast<std::uint32_t*>(memory);
      for (std::size_t i = 0; i < kWords; ++i) free_.emplace_back(words_ + i, 0);
      return;
    }
  }
  table.free(table.self, memory);  // another thread was faster
}

void Gates::close() {
  void* words = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (free_.size() != kWords) return;
    free_.clear();
    words = std::exchange(words_, nullptr);
  }
  below_.table().free(below_.table().self, words);
}

std::uint64_t Gates::held() const {
  const std::lock_guard lock(mutex_);
  return words_ == nullptr ? 0 : kBytes;
}

std::shared_ptr<Gate> Gates::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return nullptr;
  const auto [word, last] = free_.back();
  free_.pop_back();
  return {new Gate{word, last + 1}, [this](Gate* gate) {
            {
              const std::lock_guard giving(mutex_);
              free_.emplace_back(gate->word, gate->value);
            }
            delete gate;
          }};
}

void Gates::wait(const Gate& gate, std::int64_t stream) {
  if (gate.arrived.load(std::memory_order_acquire)) return;
  const PipellmDriver& table = below_.table();
  below_.noted(
      table.stream_wait_value(table.self, below_.device(), stream, gate.word, gate.value));
}

void Gates::pass(const Gate& gate, std::int64_t stream) {
  const PipellmDriver& table = below_.table();
  below_.noted(
      table.stream_write_value(table.self, below_.device(), stream, gate.word, gate.value));
}

}  // namespace pipellm::prefetch
