// Random programs for a GPU against a simple model: each operation done at once, in the order of the
// calls. The programs are free of races, by happens-before clocks over streams and host, so CUDA owes
// them just that outcome. What makes them race-free is itself chosen at random: events, waits of
// every kind, or other streams that come later anyway.
//
//   preload_random PROGRAMS [SEED]
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "stub_cudart.h"

namespace {

constexpr std::size_t kStreams = 5, kBuffers = 8, kOperations = 60;
constexpr std::size_t kSizes[] = {1 << 10, 96 << 10, 128 << 10, 200 << 10, 520 << 10};

// How many operations of each stream are known to be done; of the default stream, the first.
using Clock = std::array<unsigned, kStreams>;

void join(Clock& into, const Clock& from) {
  for (std::size_t i = 0; i < kStreams; ++i) into[i] = std::max(into[i], from[i]);
}

struct Use {
  std::size_t stream;
  unsigned number;
};

struct Buffer {
  char* memory = nullptr;
  std::size_t nbytes = 0;
  bool on_device = false;
  std::vector<char> model;
  std::vector<Use> reads;
  std::vector<Use> writes;  // none or one, but that is of no matter
};

class Program {
 public:
  explicit Program(unsigned seed) : seed_(seed), random_(seed) {
    for (std::size_t i = 0; i < kStreams; ++i) {
      blocking_[i] = i == 0 || pick(2) == 0;
      if (i > 0) check(cudaStreamCreateWithFlags(&streams_[i], blocking_[i] ? 0 : 1));
    }
    for (std::size_t i = 0; i < kBuffers; ++i) {
      Buffer& buffer = buffers_[i];
      buffer.nbytes = kSizes[pick(std::size(kSizes))];
      buffer.on_device = i < kBuffers / 2;
      buffer.model.assign(buffer.nbytes, '\xee');
      void* memory = nullptr;
      if (buffer.on_device) {
        check(cudaMalloc(&memory, buffer.nbytes));
      } else if (pick(4) == 0) {
        memory = std::malloc(buffer.nbytes);
        std::memset(memory, 0xee, buffer.nbytes);
        pageable_.push_back(memory);
      } else {
        check(cudaMallocHost(&memory, buffer.nbytes));
      }
      buffer.memory = static_cast<char*>(memory);
    }
  }

  void run() {
    for (std::size_t i = 0; i < kOperations; ++i) step();
    for (std::size_t i = 0; i < kBuffers; ++i) {
      if (!buffers_[i].on_device) look_at(buffers_[i]);
    }
    check(cudaDeviceSynchronize());
    for (const Buffer& buffer : buffers_) compare(buffer);
    check(cudaGetLastError());  // nothing of the library's own is left there
    for (const Buffer& buffer : buffers_) {
      const bool own = std::find(pageable_.begin(), pageable_.end(), buffer.memory) !=
                       pageable_.end();
      if (own) std::free(buffer.memory);
      else check(buffer.on_device ? cudaFree(buffer.memory) : cudaFreeHost(buffer.memory));
    }
  }

 private:
  std::size_t pick(std::size_t choices) { return random_() % choices; }
  Buffer& any(bool on_device) {
    return buffers_[pick(kBuffers / 2) + (on_device ? 0 : kBuffers / 2)];
  }

  void check(Error error) {
    if (error == 0) return;
    std::fprintf(stderr, "seed %u: error %d\n", seed_, error);
    std::_Exit(1);
  }

  void compare(const Buffer& buffer) {
    if (std::memcmp(buffer.memory, buffer.model.data(), buffer.nbytes) == 0) return;
    std::fprintf(stderr, "seed %u: other bytes than the model's\n", seed_);
    std::_Exit(1);
  }

  void step() {
    const std::size_t stream = pick(kStreams);
    switch (pick(8)) {
      case 0:
      case 1: return copy(any(true), any(false), stream, true);
      case 2:
      case 3: return copy(any(false), any(true), stream, false);
      case 4: return kernel(any(true), any(true), stream);
      case 5: return look_at(any(false));
      case 6: return write(any(false));
      default: return wait_for(stream);
    }
  }

  // --- The program's order ---

  // `stream` comes after `use`, by an event if by nothing else.
  void order(std::size_t stream, const Use& use) {
    if (clocks_[stream][use.stream] >= use.number) return;
    Event event;
    check(cudaEventCreateWithFlags(&event, 0));
    const std::size_t from = any_after(use);
    check(cudaEventRecord(event, streams_[from]));
    const Clock then = now(from);
    check(cudaStreamWaitEvent(streams_[stream], event, 0));
    join(clocks_[stream], then);
    check(cudaEventDestroy(event));
  }

  // The host comes after `use`.
  void order(const Use& use) {
    while (host_[use.stream] < use.number) wait_for(any_after(use));
  }

  // A stream that is, or comes, after `use`.
  std::size_t any_after(const Use& use) {
    const std::size_t first = pick(kStreams);
    for (std::size_t i = 0; i < kStreams; ++i) {
      const std::size_t stream = (first + i) % kStreams;
      if (now(stream)[use.stream] >= use.number) return stream;
    }
    return use.stream;
  }

  // What is done when all that is on `stream` now is done.
  Clock now(std::size_t stream) const {
    Clock clock = clocks_[stream];
    for (std::size_t other = 0; other < kStreams; ++other) {
      const bool joined = stream == 0 ? blocking_[other] : blocking_[stream] && other == 0;
      if (joined) join(clock, clocks_[other]);
    }
    return clock;
  }

  void wait_for(std::size_t stream) {
    // An event comes after what is on the default stream by now; the stream itself need not.
    Clock then = stream == 0 ? now(0) : clocks_[stream];
    switch (pick(5)) {
      case 0: check(cudaStreamSynchronize(streams_[stream])); break;
      case 1: check(cudaDeviceSynchronize()); break;
      case 2:
        then = now(stream);
        await(stream, [](Event event) { return cudaEventSynchronize(event); });
        break;
      case 3:
        then = now(stream);
        await(stream, [](Event event) {
          Error error;
          while ((error = cudaEventQuery(event)) == kNotReady) std::this_thread::yield();
          cudaGetLastError();
          return error;
        });
        break;
      default:
        for (Error error; (error = cudaStreamQuery(streams_[stream])) != 0;) {
          if (error != kNotReady) check(error);
          std::this_thread::yield();
        }
        cudaGetLastError();
    }
    join(host_, then);
  }

  template <typename Wait>
  void await(std::size_t stream, Wait wait) {
    Event event;
    check(cudaEventCreateWithFlags(&event, 0));
    check(cudaEventRecord(event, streams_[stream]));
    check(wait(event));
    check(cudaEventDestroy(event));
  }

  void before_reading(const Buffer& buffer, std::size_t stream) {
    for (const Use& use : buffer.writes) order(stream, use);
  }
  void before_writing(const Buffer& buffer, std::size_t stream) {
    before_reading(buffer, stream);
    for (const Use& use : buffer.reads) order(stream, use);
  }

  Use begin(std::size_t stream) {
    Clock& clock = clocks_[stream];
    join(clock, host_);
    clock = now(stream);
    return {stream, ++clock[stream]};
  }

  static void read(Buffer& buffer, const Use& use) { buffer.reads.push_back(use); }
  static void written(Buffer& buffer, const Use& use) {
    buffer.reads.clear();
    buffer.writes = {use};
  }

  // --- Operations ---

  void copy(Buffer& to, Buffer& from, std::size_t stream, bool to_device) {
    before_reading(from, stream);
    before_writing(to, stream);
    const std::size_t nbytes = std::min(to.nbytes, from.nbytes);
    const int kind = to_device ? kH2D : kD2H;
    const Use use = begin(stream);
    if (pick(6) == 0) {
      // The same as a blocking call, which is the default stream's.
      if (stream == 0) {
        check(cudaMemcpy(to.memory, from.memory, nbytes, kind));
        if (!to_device) join(host_, now(0));  // the other way it need only have read its source
      } else {
        check(cudaMemcpyAsync(to.memory, from.memory, nbytes, kind, streams_[stream]));
        wait_for(stream);
      }
    } else {
      check(cudaMemcpyAsync(to.memory, from.memory, nbytes, kind, streams_[stream]));
    }
    std::copy_n(from.model.begin(), nbytes, to.model.begin());
    read(from, use);
    written(to, use);
  }

  void kernel(Buffer& to, Buffer& from, std::size_t stream) {
    before_reading(from, stream);
    before_writing(to, stream);
    const std::size_t nbytes = std::min(to.nbytes, from.nbytes);
    const auto number = static_cast<int>(pick(256));
    const Use use = begin(stream);
    stub_kernel(to.memory, from.memory, nbytes, number, streams_[stream]);
    for (std::size_t i = 0; i < nbytes; ++i) {
      to.model[i] = static_cast<char>(to.model[i] * 31 + from.model[i] + number);
    }
    if (&to != &from) read(from, use);
    written(to, use);
  }

  void look_at(const Buffer& buffer) {
    for (const Use& use : buffer.writes) order(use);
    compare(buffer);
  }

  void write(Buffer& buffer) {
    for (const Use& use : buffer.writes) order(use);
    for (const Use& use : buffer.reads) order(use);
    const auto value = static_cast<char>(pick(256));
    std::memset(buffer.memory, value, buffer.nbytes);
    std::fill(buffer.model.begin(), buffer.model.end(), value);
    buffer.reads.clear();
    buffer.writes.clear();
  }

  const unsigned seed_;
  std::mt19937 random_;
  std::array<Stream, kStreams> streams_{};
  std::array<bool, kStreams> blocking_{};
  std::array<Buffer, kBuffers> buffers_;
  std::vector<void*> pageable_;
  std::array<Clock, kStreams> clocks_{};
  Clock host_{};
};

}  // namespace

int main(int argc, char** argv) {
  const unsigned programs = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 1;
  const unsigned first = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1;
  for (unsigned i = 0; i < programs; ++i) Program(first + i).run();
  std::printf("%u programs, staged: %s\n", programs, stub_copies(3, 1) > 0 ? "yes" : "no");
}
