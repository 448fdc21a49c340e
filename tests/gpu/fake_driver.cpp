// A driver for testing the torch backend by itself: no channel, no model, and *lazy*. An
// asynchronous copy of pinned memory moves its bytes only when something waits for its stream, the
// latest moment that CUDA's rules allow, so a backend that reads too early or frees too soon is
// caught every time.
// A stream's clock advances by `busy` alone.
#include "fake_device.h"

namespace {

using namespace fake_device;

#define ENTER()                                                              \
  if (forked()) return fail(PIPELLM_CONTEXT_LOST, "the process has forked"); \
  const Entry entry

int do_malloc(void*, int32_t device, uint64_t nbytes, void** out) {
  ENTER();
  PipellmMemoryInfo& memory = fake.memory.at(device);
  nbytes = (nbytes + 511) / 512 * 512;
  if (memory.allocated + nbytes > memory.total) return fail(PIPELLM_OUT_OF_MEMORY, "out of memory");
  char* pointer = static_cast<char*>(std::aligned_alloc(512, nbytes));
  fake.blocks[pointer] = {nbytes, device};
  memory.allocated += nbytes;
  *out = pointer;
  return PIPELLM_OK;
}

int do_free(void*, void* pointer) {
  if (pointer == nullptr) return PIPELLM_OK;
  ENTER();
  const auto block = fake.blocks.find(static_cast<char*>(pointer));
  if (block == fake.blocks.end()) return fail(PIPELLM_INVALID_VALUE, "not an allocation");
  if (block->second.device >= 0) {
    fake.memory[block->second.device].allocated -= block->second.nbytes;
  }
  std::memset(pointer, 0xA5, block->second.nbytes);  // a use after free shows
  fake.blocks.erase(block);
  std::free(pointer);
  return PIPELLM_OK;
}

int do_host_alloc(void*, uint64_t nbytes, void** out) {
  ENTER();
  *out = std::aligned_alloc(256, (nbytes + 255) / 256 * 256);
  fake.blocks[static_cast<char*>(*out)] = {nbytes, -1};
  return PIPELLM_OK;
}

int do_host_register(void*, void* pointer, uint64_t nbytes) {
  ENTER();
  if (fake.confidential) return fail(PIPELLM_NOT_SUPPORTED, "operation not supported");
  fake.blocks[static_cast<char*>(pointer)] = {nbytes, -1};
  return PIPELLM_OK;
}

int do_host_unregister(void*, void* pointer) {
  ENTER();
  return fake.blocks.erase(static_cast<char*>(pointer)) ? PIPELLM_OK : PIPELLM_INVALID_VALUE;
}

int do_is_pinned(void*, const void* pointer) {
  const std::lock_guard lock(fake.mutex);
  const Block* block = find(pointer);
  return !fake.confidential && block != nullptr && block->device < 0;
}

int do_device_of(void*, const void* pointer) {
  const std::lock_guard lock(fake.mutex);
  const Block* block = find(pointer);
  return block == nullptr ? -1 : block->device;
}

int do_memory_info(void*, int32_t device, PipellmMemoryInfo* out) {
  const std::lock_guard lock(fake.mutex);
  *out = fake.memory.at(device);
  return PIPELLM_OK;
}

int do_copy(void*, const PipellmCopy* copy) {
  ENTER();
  if (fake.fail_next_copy != PIPELLM_OK) {
    if (copy->release != nullptr) fake.done.push_back(*copy);
    return fail(std::exchange(fake.fail_next_copy, PIPELLM_OK), "H2D message 7: context lost");
  }
  const bool up = copy->direction == PIPELLM_H2D;
  const Block* device = find(up ? copy->destination : copy->source);
  const Block* host = find(up ? copy->source : copy->destination);
  if (device == nullptr || device->device != copy->device) {
    return fail(PIPELLM_INVALID_VALUE, "a copy's device side is not this device's memory");
  }
  ++fake.copies[copy->direction];
  Stream& stream = fake.streams[{copy->device, copy->stream}];
  if (copy->asynchronous != 0 && host != nullptr && host->device < 0) {
    stream.pending.push_back({Command::kCopy, *copy, nullptr, 0, 0});
  } else {
    drain(stream);
    move_bytes(*copy);
  }
  return PIPELLM_OK;
}

int do_sync(void*, int32_t device, int32_t scope, int64_t stream) {
  ENTER();
  if (scope == PIPELLM_SYNC_STREAM) {
    drain(fake.streams[{device, stream}]);
  } else {
    for (auto& [key, each] : fake.streams) {
      if (key.first == device) drain(each);
    }
  }
  return PIPELLM_OK;
}

int do_launch(void*, int32_t device, int64_t stream) {
  ENTER();
  drain(fake.streams[{device, stream}]);
  return PIPELLM_OK;
}

int do_busy(void*, int32_t device, int64_t stream, int64_t nanoseconds) {
  ENTER();
  fake.streams[{device, stream}].pending.push_back(
      {Command::kBusy, {}, nullptr, 0, nanoseconds});
  return PIPELLM_OK;
}

int do_stream_create(void*, int32_t, int64_t* out) {
  ENTER();
  *out = fake.next_stream++;
  return PIPELLM_OK;
}

// The first question finds work pending and has it done; the second finds it done.
int do_stream_query(void*, int32_t device, int64_t id) {
  ENTER();
  Stream& stream = fake.streams[{device, id}];
  const bool pending = !stream.pending.empty();
  drain(stream);
  return pending ? PIPELLM_NOT_READY : PIPELLM_OK;
}

int do_event_create(void*, int32_t device, void** out) {
  ENTER();
  *out = new Event{.device = device};
  return PIPELLM_OK;
}

int do_event_destroy(void*, void* event) {
  ENTER();
  for (auto& [key, stream] : fake.streams) {  // as CUDA's: what was enqueued still counts
    for (const Command& command : stream.pending) {
      if (command.event == event) {
        drain(stream);
        break;
      }
    }
  }
  delete static_cast<Event*>(event);
  return PIPELLM_OK;
}

int do_event_record(void*, void* pointer, int64_t stream) {
  ENTER();
  auto* event = static_cast<Event*>(pointer);
  event->stream = stream;
  fake.streams[{event->device, stream}].pending.push_back(
      {Command::kRecord, {}, event, ++event->recorded, 0});
  return PIPELLM_OK;
}

int do_event_query(void*, void* pointer) {
  ENTER();
  auto* event = static_cast<Event*>(pointer);
  const bool pending = event->reached < event->recorded;
  drain(fake.streams[{event->device, event->stream}]);
  return pending ? PIPELLM_NOT_READY : PIPELLM_OK;
}

int do_event_synchronize(void*, void* pointer) {
  ENTER();
  auto* event = static_cast<Event*>(pointer);
  drain(fake.streams[{event->device, event->stream}]);
  return PIPELLM_OK;
}

int do_event_elapsed(void*, void* start, void* end, double* milliseconds) {
  ENTER();
  *milliseconds =
      double(static_cast<Event*>(end)->time_ns - static_cast<Event*>(start)->time_ns) / 1e6;
  return PIPELLM_OK;
}

int do_stream_wait_event(void*, int32_t device, int64_t stream, void* pointer) {
  ENTER();
  auto* event = static_cast<Event*>(pointer);
  fake.streams[{device, stream}].pending.push_back({Command::kWait, {}, event, event->recorded, 0});
  return PIPELLM_OK;
}

}  // namespace

extern "C" const PipellmDriver* fake_driver(int devices, uint64_t capacity, int confidential) {
  fake.devices = devices;
  fake.confidential = confidential != 0;
  fake.memory.assign(devices, PipellmMemoryInfo{capacity, 0});
  fake.table = {
      PIPELLM_DRIVER_ABI,
      sizeof(PipellmDriver),
      nullptr,
      [](void*) { return words.c_str(); },
      [](void*) { return fake.devices; },
      [](void*) -> int { return forked(); },
      [](void*) -> int { return fake.confidential; },
      do_malloc,
      do_free,
      do_host_alloc,
      do_free,
      do_host_register,
      do_host_unregister,
      do_is_pinned,
      do_device_of,
      do_memory_info,
      do_copy,
      do_sync,
      do_launch,
      do_busy,
      nullptr,  // operated: nobody keeps a trace
      do_stream_create,
      do_stream_query,
      do_event_create,
      do_event_destroy,
      do_event_record,
      do_event_query,
      do_event_synchronize,
      do_event_elapsed,
      do_stream_wait_event,
      nullptr,  // copy_on_device, fill, stream_write_value, stream_wait_value: the backend uses none
      nullptr,
      nullptr,
      nullptr,
  };
  return &fake.table;
}

extern "C" int64_t fake_copies(int direction) { return fake.copies[direction]; }
extern "C" void fake_fail_next_copy(int status) { fake.fail_next_copy = status; }
