// What has to wait for a copy to the host that has left its stream.
#include "scenes.h"

SCENE(stream_synchronize) {
  const Stream stream = new_stream();
  const Late late(stream);
  OK(cudaStreamSynchronize(stream));
  REQUIRE(late.memory.host_is(7));
}

SCENE(device_synchronize) {
  const Late late(new_stream());
  OK(cudaDeviceSynchronize());
  REQUIRE(late.memory.host_is(7));
}

SCENE(event_synchronize) {
  const Stream stream = new_stream();
  const Late late(stream);
  const Event event = new_event();
  OK(cudaEventRecord(event, stream));
  OK(cudaEventSynchronize(event));
  REQUIRE(late.memory.host_is(7));
  OK(cudaEventDestroy(event));
}

SCENE(an_event_of_a_stream_that_waited_for_an_event) {
  const Stream first = new_stream(), second = new_stream();
  const Late late(first);
  const Event event = new_event(), after = new_event();
  OK(cudaEventRecord(event, first));
  OK(cudaStreamWaitEvent(second, event, 0));
  OK(cudaEventRecord(after, second));
  OK(cudaEventSynchronize(after));
  REQUIRE(late.memory.host_is(7));
}

SCENE(an_event_that_is_recorded_anew_vouches_for_no_more) {
  const Stream first = new_stream(), second = new_stream();
  Memory memory;
  const Event event = new_event();
  stub_hold_copies_to_host(1);
  OK(memory.to_host(first));
  OK(cudaEventRecord(event, first));
  OK(cudaEventRecord(event, second));
  OK(cudaEventSynchronize(event));
  stub_hold_copies_to_host(0);
  OK(cudaStreamSynchronize(first));
}

SCENE(the_default_stream_vouches_for_blocking_streams) {
  const Late late(new_stream(0));
  OK(cudaStreamSynchronize(nullptr));
  REQUIRE(late.memory.host_is(7));
}

SCENE(blocking_streams_vouch_for_the_default_stream) {
  const Stream stream = new_stream(0);
  const Late late(nullptr);
  OK(cudaStreamSynchronize(stream));
  REQUIRE(late.memory.host_is(7));
}

SCENE(blocking_streams_vouch_for_each_other_by_way_of_the_default_stream) {
  const Stream first = new_stream(0), second = new_stream(0);
  const Late late(first);
  OK(cudaMemsetAsync(late.memory.device, 0, 1, nullptr));
  OK(cudaMemsetAsync(late.memory.device, 0, 1, second));
  OK(cudaStreamSynchronize(second));
  REQUIRE(late.memory.host_is(7));
}

SCENE(queries) {
  const Stream stream = new_stream();
  const Event event = new_event();
  Memory memory;
  float milliseconds;
  OK(cudaMemsetAsync(memory.device, 7, memory.nbytes, stream));
  stub_hold_copies_to_host(1);
  OK(memory.to_host(stream));
  OK(cudaEventRecord(event, stream));
  for (int i = 0; i < 1000; ++i) {  // CUDA itself is soon done
    REQUIRE(cudaStreamQuery(stream) == kNotReady);
    REQUIRE(cudaEventQuery(event) == kNotReady);
    REQUIRE(cudaEventElapsedTime(&milliseconds, event, event) == kNotReady);
  }
  stub_hold_copies_to_host(0);
  while (cudaEventQuery(event) == kNotReady) std::this_thread::yield();
  REQUIRE(memory.host_is(7));
  OK(cudaStreamQuery(stream));
  OK(cudaEventElapsedTime(&milliseconds, event, event));
}

SCENE(a_copy_on_of_what_was_copied) {
  const Stream stream = new_stream();
  const Late late(stream);
  Memory other;
  OK(cudaMemcpyAsync(other.device, late.memory.host, other.nbytes, kH2D, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(other.host, other.device, other.nbytes, kD2H));
  REQUIRE(other.host_is(7));
}

SCENE(a_small_copy_on_of_what_was_copied) {
  const Stream stream = new_stream();
  const Late late(stream);
  Memory other(kSmall);
  OK(cudaMemcpyAsync(other.device, late.memory.host, kSmall, kH2D, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaMemcpy(other.host, other.device, other.nbytes, kD2H));
  REQUIRE(other.host_is(7));
}

SCENE(a_later_copy_to_the_same_memory) {
  const Stream first = new_stream(), second = new_stream();
  const Late late(first);
  Memory other;
  const Event event = new_event();
  OK(cudaMemsetAsync(other.device, 8, other.nbytes, second));
  OK(cudaEventRecord(event, first));
  OK(cudaStreamWaitEvent(second, event, 0));
  OK(cudaMemcpyAsync(late.memory.host, other.device, other.nbytes, kD2H, second));
  OK(cudaStreamSynchronize(second));
  REQUIRE(late.memory.host_is(8));
}

SCENE(a_blocking_copy) {
  const Late late(nullptr);
  char byte;
  OK(cudaMemcpy(&byte, late.memory.device, 1, kD2H));
  REQUIRE(late.memory.host_is(7));
}

SCENE(a_host_function) {
  const Stream stream = new_stream();
  const Late late(stream);
  static bool seen = false;
  OK(cudaLaunchHostFunc(
      stream, [](void* memory) { seen = static_cast<Memory*>(memory)->host_is(7); },
      const_cast<Memory*>(&late.memory)));
  OK(cudaStreamSynchronize(stream));
  REQUIRE(seen);
}

SCENE(a_copy_of_what_a_host_function_writes) {
  const Stream stream = new_stream(), other = new_stream();
  Memory memory;
  const Event event = new_event();
  for (int round = 0; round < 8; ++round) {
    std::memset(memory.host, 1, memory.nbytes);
    OK(memory.to_device(stream));
    OK(cudaLaunchHostFunc(
        stream,
        [](void* host) {
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          std::memset(host, 6, kLarge);
        },
        memory.host));
    OK(cudaEventRecord(event, stream));
    OK(cudaStreamWaitEvent(other, event, 0));
    OK(memory.to_device(other));
    OK(cudaStreamSynchronize(other));
    OK(cudaMemcpy(memory.host, memory.device, memory.nbytes, kD2H));
    REQUIRE(memory.host_is(6));
  }
}

SCENE(freeing_device_memory) {
  const Late late(new_stream());
  OK(cudaFree(late.memory.device));
  REQUIRE(late.memory.host_is(7));
}

SCENE(freeing_what_is_copied_to) {
  const Late late(new_stream());
  OK(cudaFreeHost(late.memory.host));
}

SCENE(a_reset) {
  Memory memory;
  {
    const Late late(new_stream());
    OK(cudaDeviceReset());
    REQUIRE(late.memory.host_is(7));
  }
  const Stream stream = new_stream();
  Memory again;
  OK(again.to_device(stream));
  OK(again.to_host(stream));
  OK(cudaStreamSynchronize(stream));
  REQUIRE(again.host_is(1));
}
