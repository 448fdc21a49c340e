#include "bench/replay.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "pipelined/preparation.h"

namespace pipellm {

namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;  // odd, so that no word repeats

std::uint64_t first_word(std::uint64_t tag) { return tag * 0xD1342543DE82EF95 + 1; }

class Thawed {
 public:
  explicit Thawed(Context& context) : context_(context) { context_.thaw(); }
  ~Thawed() { context_.freeze(); }
  Thawed(const Thawed&) = delete;
  Thawed& operator=(const Thawed&) = delete;

 private:
  Context& context_;
};

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

Replay::Replay(Driver& driver, bool charged)
    : driver_(driver),
      context_(driver.context(0)),
      charged_(charged && driver.clock()->slowdown() > 1) {
  context_.freeze();
}

Replay::~Replay() { context_.thaw(); }

void* Replay::host_memory(std::uint64_t nbytes, bool pinned) {
  if (pinned) return driver_.allocate_host(nbytes);
  void* memory =
      mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

void* Replay::device_memory(std::uint64_t nbytes) { return driver_.allocate(0, nbytes); }

std::vector<Nanoseconds> Replay::run(std::span<const Operation> operations) {
  const Thawed thawed(context_);
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
  Clock& clock = *driver_.clock();
  const Nanoseconds before = clock.worked();
  perform(operation, marks);
  const auto worked = static_cast<double>(clock.worked() - before);
  if (operation.kind == Kind::kFill) return;  // the program's own work, under every policy
  // On this clock it has taken 1 / slowdown of that so far.
  const double slowdown = clock.slowdown();
  const double missing = 1 / std::min(messages_in(operation), slowdown) - 1 / slowdown;
  clock.wait_until(clock.now() + static_cast<Nanoseconds>(worked * missing));
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
  Clock& clock = *driver_.clock();
  switch (operation.kind) {
    case Kind::kCopy: {
      auto* host = reinterpret_cast<void*>(operation.b);
      auto* device = reinterpret_cast<void*>(operation.c);
      const bool h2d = operation.a == kH2d;
      context_.copy({0, static_cast<std::int32_t>(operation.a), h2d ? device : host,
                     h2d ? host : device, static_cast<std::uint64_t>(operation.d),
                     operation.e != 0, 0, stream(operation.stream), nullptr, nullptr});
      return;
    }
    case Kind::kBusy: {
      const Nanoseconds launch = driver_.options().cost.launch;
      if (operation.b > 1) clock.wait_until(clock.now() + (operation.b - 1) * launch);
      context_.busy(stream(operation.stream), operation.a);
      return;
    }
    case Kind::kSynchronize:
      if (operation.stream < 0) {
        context_.synchronize();
      } else {
        context_.synchronize(stream(operation.stream));
      }
      return;
    case Kind::kStreamWait: {
      Event event;
      context_.record(event, stream(operation.a));
      context_.wait_event(stream(operation.stream), event);
      return;
    }
    case Kind::kFill:
      fill_pattern(reinterpret_cast<void*>(operation.b), static_cast<std::uint64_t>(operation.d),
                   static_cast<std::uint64_t>(operation.a));
      return;
    case Kind::kIdle:
      clock.wait_until(clock.now() + operation.a);
      return;
    case Kind::kMark:
      marks.push_back(clock.now());
      return;
  }
  throw std::invalid_argument("an operation of unknown kind");
}

Stream Replay::stream(std::int64_t number) {
  if (number == 0) return 0;
  const auto [found, is_new] = streams_.try_emplace(number);
  if (is_new) found->second = context_.create_stream();
  return found->second;
}

}  // namespace pipellm
