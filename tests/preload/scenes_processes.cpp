// Errors; processes and threads.
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "scenes.h"

SCENE(an_error_of_a_copy_is_told_once) {
  const Stream stream = new_stream();
  Memory memory;
  OK(memory.to_device(stream));
  stub_fail(kD2H, 719);
  OK(memory.to_host(stream));
  REQUIRE(cudaStreamSynchronize(stream) == 719);
  OK(cudaStreamSynchronize(stream));
  stub_fail(kD2H, 719);
  OK(memory.to_host(stream));
  while (cudaPeekAtLastError() == 0) std::this_thread::yield();
  REQUIRE(cudaGetLastError() == 719);
  OK(cudaGetLastError());
}

SCENE(staging_that_fails_is_done_without) {
  const Stream stream = new_stream();
  Memory memory;
  for (const int kind : {1, 3}) {
    stub_fail(kind, 2);
    std::memset(memory.host, 5, memory.nbytes);
    OK(memory.to_device(stream));
    OK(cudaGetLastError());
    OK(cudaStreamSynchronize(stream));
  }
  OK(cudaMemsetAsync(memory.device, 9, memory.nbytes, stream));
  stub_fail(3, 2);
  OK(memory.to_host(stream));
  OK(cudaStreamSynchronize(stream));
  REQUIRE(memory.host_is(9));
  OK(cudaGetLastError());
}

SCENE(a_copy_that_cuda_refuses_is_refused) {
  const Stream stream = new_stream();
  Memory memory;
  void* other = std::malloc(kLarge);
  REQUIRE(cudaMemcpyAsync(other, memory.host, kLarge, kH2D, stream) == kInvalidValue);
  REQUIRE(cudaMemcpyAsync(memory.host, other, kLarge, kD2H, stream) == kInvalidValue);
  REQUIRE(cudaGetLastError() == kInvalidValue);
  REQUIRE(staged(memory, stream));
  OK(cudaGetLastError());
}

SCENE(a_forked_child_hears_what_cuda_says) {
  const Stream stream = new_stream();
  const Late late(stream);
  const pid_t child = fork();
  if (child == 0) {
    const bool said = cudaStreamSynchronize(stream) == 3 && late.memory.to_host(stream) == 3 &&
                      cudaDeviceSynchronize() == 3;
    std::_Exit(said ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  OK(status);
  OK(cudaStreamSynchronize(stream));
  REQUIRE(late.memory.host_is(7));
}

SCENE(a_program_may_end_with_copies_under_way) {
  const Stream stream = new_stream();
  Memory memory;
  OK(memory.to_host(stream));
  stub_hold(stream);
  OK(memory.to_host(stream));
}

SCENE(many_threads) {
  std::vector<std::thread> threads;
  for (int number = 1; number <= 6; ++number) {
    threads.emplace_back([number] {
      const Stream stream = number == 1 ? nullptr : new_stream(number % 2);
      Memory memory;
      for (int round = 0; round < 40; ++round) {
        const int value = (number * 40 + round) % 256;
        std::memset(memory.host, value, memory.nbytes);
        OK(memory.to_device(stream));
        OK(cudaStreamSynchronize(stream));
        std::memset(memory.host, 0, memory.nbytes);
        OK(memory.to_host(stream));
        OK(cudaStreamSynchronize(stream));
        REQUIRE(memory.host_is(value));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

SCENE(each_threads_own_default_stream) {
  Memory memory;
  std::memset(memory.host, 3, memory.nbytes);
  OK(cudaMemcpyAsync_ptsz(memory.device, memory.host, memory.nbytes, kH2D, nullptr));
  OK(cudaStreamSynchronize_ptsz(nullptr));
  std::memset(memory.host, 0, memory.nbytes);
  OK(cudaMemcpyAsync_ptsz(memory.host, memory.device, memory.nbytes, kD2H, nullptr));
  OK(cudaStreamSynchronize_ptsz(nullptr));
  REQUIRE(memory.host_is(3));
  REQUIRE(stub_copies(3, 1) > 0);
}
