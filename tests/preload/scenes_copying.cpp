// Which copies are staged, and that their caller goes on.
#include <vector>

#include "scenes.h"

SCENE(copies_go_on_behind_a_stream_that_is_busy) {
  const Stream stream = new_stream();
  Memory in, out;
  std::memset(in.host, 5, in.nbytes);
  OK(cudaMemsetAsync(in.device, 9, in.nbytes, stream));
  OK(cudaMemsetAsync(out.device, 3, out.nbytes, stream));
  stub_hold(stream);
  OK(out.to_host(stream));                                             // 3
  OK(in.to_device(stream));                                            // 5
  stub_kernel(out.device, in.device, out.nbytes, 0, stream);           // 3 * 31 + 5
  std::memset(in.host, 6, stub_stalls() == 0 ? 0 : in.nbytes);
  stub_release();
  OK(cudaStreamSynchronize(stream));
  REQUIRE(out.host_is(3));
  OK(out.to_host(stream));
  OK(cudaStreamSynchronize(stream));
  REQUIRE(out.host_is(98));
}

SCENE(a_stream_that_is_busy_holds_up_no_other) {
  const Stream busy = new_stream(), other = new_stream();
  Memory a, b;
  OK(cudaMemsetAsync(a.device, 2, a.nbytes, busy));
  OK(cudaMemsetAsync(b.device, 4, b.nbytes, other));
  stub_hold(busy);
  OK(a.to_host(busy));
  OK(b.to_host(other));
  OK(cudaStreamSynchronize(other));
  REQUIRE(b.host_is(4));
  stub_release();
  OK(cudaStreamSynchronize(busy));
  REQUIRE(a.host_is(2));
}

SCENE(only_large_copies_of_pinned_memory_are_staged) {
  const Stream stream = new_stream();
  REQUIRE(staged(Memory(), stream));
  REQUIRE(!staged(Memory(kSmall), stream));
  REQUIRE(!staged(Memory(kLarge, kMapped), stream));
  Memory shown;
  void* device;
  OK(cudaHostGetDevicePointer(&device, shown.host, 0));
  REQUIRE(!staged(shown, stream));
  Memory pageable;
  OK(cudaFreeHost(pageable.host));
  std::vector<char> memory(pageable.nbytes);
  pageable.host = memory.data();
  REQUIRE(!staged(pageable, stream));
}

SCENE(nothing_is_staged) { REQUIRE(!staged(Memory(), new_stream())); }

SCENE(a_graph) {
  const Stream stream = new_stream();
  Memory memory, before;
  void* graph;
  REQUIRE(cudaStreamBeginCapture(stream, 0) == 0);
  OK(memory.to_device(stream));
  OK(before.to_device(new_stream()));  // first use of this device, while somebody captures
  OK(cudaStreamEndCapture(stream, &graph));
  std::memset(memory.host, 6, memory.nbytes);
  OK(cudaGraphLaunch(graph, stream));
  OK(cudaStreamSynchronize(stream));
  OK(memory.to_host(stream));
  OK(cudaStreamSynchronize(stream));
  REQUIRE(memory.host_is(6));
  REQUIRE(staged(memory, stream));
}
