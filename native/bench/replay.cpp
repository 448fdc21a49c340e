#include "bench/replay.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "crypto/channel.h"
#include "link/status.h"

namespace pipellm {

namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;  // odd, so that no word repeats

std::uint64_t first_word(std::uint64_t tag) { return tag * 0xD1342543DE82EF95 + 1; }

}  // namespace

void fill_pattern(void* start, std::uint64_t nbytes, std::uint64_t tag) {
  auto* words = static_cast<std::uint64_t*>(start);
  const std::uint64_t first = first_word(tag);
  const std::uint64_t whole = nbytes / 8;
  for (std::uint64_t i = 0; i < whole; ++i) words[i] = first + i * kGolden;
  const std::uint64_t last = first + whole * kGolden;
  std::memcpy(words + whole, &last, nbytes % 8);
}

bool holds_pattern(const void* start, std::uint64_t nbytes, std::uint64_t tag) {
  const auto* words = static_cast<const std::uint64_t*>(start);
  const std::uint64_t first = first_word(tag);
  std::uint64_t differences = 0;  // no early exit: that would keep the loop from being vectorised
  const std::uint64_t whole = nbytes / 8;
  for (std::uint64_t i = 0; i < whole; ++i) differences |= words[i] ^ (first + i * kGolden);
  const std::uint64_t last = first + whole * kGolden;
  return differences == 0 && std::memcmp(words + whole, &last, nbytes % 8) == 0;
}

class Replay::Thawed {
 public:
  explicit Thawed(Replay& replay) : replay_(replay) { replay_.thaw(); }
  ~Thawed() { replay_.freeze(); }
  Thawed(const Thawed&) = delete;
  Thawed& operator=(const Thawed&) = delete;

 private:
  Replay& replay_;
};

Replay::Replay(const PipellmDriver& driver, std::vector<Layer*> layers, Clock& clock,
               Nanoseconds launch, bool charged, std::function<bool()> device_idle)
    : driver_(driver),
      layers_(std::move(layers)),
      clock_(clock),
      launch_(launch),
      charged_(charged && clock.slowdown() > 1) {
  if (clock_.slowdown() > 1) {
    clock_.skip_waits([this, device_idle = std::move(device_idle)] {
      return device_idle() && std::all_of(layers_.begin(), layers_.end(),
                                          [](Layer* layer) { return layer->idle(); });
    });
  }
  freeze();
}

Replay::~Replay() {
  thaw();
  clock_.skip_waits({});
}

void Replay::freeze() {
  for (Layer* const layer : layers_) layer->freeze();
  clock_.pause();
}

void Replay::thaw() {
  clock_.resume();
  for (Layer* const layer : layers_) layer->thaw();
}

void* Replay::host_memory(std::uint64_t nbytes, bool pinned) {
  void* memory = nullptr;
  if (pinned) {
    require_ok(driver_.host_alloc(driver_.self, nbytes, &memory));
    return memory;
  }
  memory = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

void* Replay::device_memory(std::uint64_t nbytes) {
  void* memory = nullptr;
  require_ok(driver_.malloc(driver_.self, 0, nbytes, &memory));
  return memory;
}

std::vector<Nanoseconds> Replay::run(std::span<const Operation> operations) {
  const Thawed thawed(*this);
  std::vector<Nanoseconds> marks;
  for (const Operation& operation : operations) {
    if (charged_) {
      perform_and_charge(operation, marks);
    } else {
      perform(operation, marks);
    }
  }
  return marks;
}

void Replay::perform_and_charge(const Operation& operation, std::vector<Nanoseconds>& marks) {
  const Nanoseconds before = clock_.worked();
  perform(operation, marks);
  const auto worked = static_cast<double>(clock_.worked() - before);
  if (operation.kind == Kind::kFill) return;  // the program's own work, under every policy
  // On this clock it has taken 1 / slowdown of that so far.
  const double slowdown = clock_.slowdown();
  const double missing = 1 / std::min(messages_in(operation), slowdown) - 1 / slowdown;
  clock_.wait_until(clock_.now() + static_cast<Nanoseconds>(worked * missing));
}

// That the program's thread may have had a hand in.
double Replay::messages_in(const Operation& operation) {
  std::uint64_t messages = 1;
  if (operation.kind == Kind::kCopy) {
    messages = messages_of(static_cast<std::uint64_t>(operation.d));
    if (operation.a == PIPELLM_D2H) to_host_ += messages;
  } else if (operation.kind == Kind::kSynchronize) {
    messages = std::max(messages, std::exchange(to_host_, std::uint64_t{0}));
  }
  return static_cast<double>(messages);
}

void Replay::perform(const Operation& operation, std::vector<Nanoseconds>& marks) {
  void* const self = driver_.self;
  switch (operation.kind) {
    case Kind::kCopy: {
      auto* host = reinterpret_cast<void*>(operation.b);
      auto* device = reinterpret_cast<void*>(operation.c);
      const bool h2d = operation.a == PIPELLM_H2D;
      const PipellmCopy copy{0, static_cast<std::int32_t>(operation.a), h2d ? device : host,
                             h2d ? host : device, static_cast<std::uint64_t>(operation.d),
                             operation.e != 0, 0, stream(operation.stream), nullptr, nullptr};
      require_ok(driver_.copy(self, &copy));
      return;
    }
    case Kind::kBusy: {
      if (operation.b > 1) clock_.wait_until(clock_.now() + (operation.b - 1) * launch_);
      require_ok(driver_.busy(self, 0, stream(operation.stream), operation.a));
      return;
    }
    case Kind::kSynchronize: {
      const bool all = operation.stream < 0;
      require_ok(driver_.sync(self, 0, all ? PIPELLM_SYNC_DEVICE : PIPELLM_SYNC_STREAM,
                              all ? 0 : stream(operation.stream)));
      return;
    }
    case Kind::kStreamWait: {
      const Stream waiting = stream(operation.stream), awaited = stream(operation.a);
      void* event = nullptr;
      require_ok(driver_.event_create(self, 0, &event));
      int status = driver_.event_record(self, event, awaited);
      if (status == PIPELLM_OK) status = driver_.stream_wait_event(self, 0, waiting, event);
      driver_.event_destroy(self, event);
      require_ok(status);
      return;
    }
    case Kind::kFill:
      fill_pattern(reinterpret_cast<void*>(operation.b), static_cast<std::uint64_t>(operation.d),
                   static_cast<std::uint64_t>(operation.a));
      return;
    case Kind::kIdle:
      clock_.wait_until(clock_.now() + operation.a);
      return;
    case Kind::kMark:
      marks.push_back(clock_.now());
      return;
  }
  throw std::invalid_argument("an operation of unknown kind");
}

Stream Replay::stream(std::int64_t number) {
  if (number == 0) return 0;
  const auto [found, is_new] = streams_.try_emplace(number);
  if (is_new) require_ok(driver_.stream_create(driver_.self, 0, &found->second));
  return found->second;
}

}  // namespace pipellm
