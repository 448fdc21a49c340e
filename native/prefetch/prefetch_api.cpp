// The entries of the layer's table.
#include <algorithm>
#include <string>
#include <type_traits>

#include "link/status.h"
#include "prefetch/device.h"
#include "prefetch/prefetch_driver.h"

namespace pipellm::prefetch {

namespace {

PrefetchDriver& layer_of(void* self) {
  return static_cast<PrefetchDriver&>(*static_cast<Layer*>(self));
}

// Runs `body` with the device and gives what it returns; where there is none, why.
template <typename Body>
int on(void* self, std::int32_t number, Body body) {
  PrefetchDriver& layer = layer_of(self);
  int status = PIPELLM_OK;
  Device* const device = layer.device(number, status);
  if (device == nullptr) return status;
  return guarded([&] { return body(*device); });
}

int in_bad_fork(void* self) {
  const PrefetchDriver& layer = layer_of(self);
  return layer.forked() || layer.below(&PipellmDriver::in_bad_fork) != 0 ? 1 : 0;
}

int allocate(void* self, std::int32_t device, std::uint64_t nbytes, void** out) {
  PrefetchDriver& layer = layer_of(self);
  int status = layer.below(&PipellmDriver::malloc, device, nbytes, out);
  if (layer.forked()) return status;
  Device* const used = layer.device_if_used(device);
  if (status == PIPELLM_OUT_OF_MEMORY && used != nullptr) {
    used->release_memory();
    status = layer.below(&PipellmDriver::malloc, device, nbytes, out);
  }
  if (status == PIPELLM_OK) layer.add_block(*out, nbytes);
  // Whoever gets memory must hear so: of a fault of ours, the next copy or wait tells.
  if (used != nullptr) used->settle(status);
  return status;
}

int release(void* self, void* pointer) {
  PrefetchDriver& layer = layer_of(self);
  if (!layer.forked() && pointer != nullptr) {
    const std::uint64_t nbytes = layer.remove_block(pointer);
    layer.each_device([&](Device& device) { device.before_free(pointer, nbytes); });
  }
  return layer.below(&PipellmDriver::free, pointer);
}

// Host memory is ours: the driver below need not know it, as it copies from and to memory of ours, or
// on a thread that may wait.
int host_alloc(void* self, std::uint64_t nbytes, void** out) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return layer.below(&PipellmDriver::host_alloc, nbytes, out);
  layer.each_device([](Device& device) { device.before_pinning(); });
  *out = layer.pinned().allocate(nbytes);
  return *out != nullptr ? PIPELLM_OK : refused(PIPELLM_OUT_OF_MEMORY, "out of host memory");
}

void forget(PrefetchDriver& layer, const void* pointer, std::uint64_t nbytes) {
  if (nbytes == 0) return;
  layer.each_device([&](Device& device) { device.before_host_free(range_of(pointer, nbytes)); });
}

int host_free(void* self, void* pointer) {
  PrefetchDriver& layer = layer_of(self);
  if (pointer == nullptr || layer.forked()) return PIPELLM_OK;
  forget(layer, pointer, layer.pinned().size_of(pointer));
  if (layer.pinned().release(pointer)) return PIPELLM_OK;
  return refused(PIPELLM_INVALID_VALUE, "the pointer to free is no pinned memory");
}

int host_register(void* self, void* pointer, std::uint64_t nbytes) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return layer.below(&PipellmDriver::host_register, pointer, nbytes);
  layer.each_device([](Device& device) { device.before_pinning(); });
  if (pointer == nullptr || nbytes == 0 || !layer.pinned().add(pointer, nbytes)) {
    return refused(PIPELLM_INVALID_VALUE, "the memory to register is empty or pinned already");
  }
  return PIPELLM_OK;
}

int host_unregister(void* self, void* pointer) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return PIPELLM_OK;
  forget(layer, pointer, layer.pinned().registered(pointer));
  if (layer.pinned().remove(pointer)) return PIPELLM_OK;
  return refused(PIPELLM_INVALID_VALUE, "the memory to unregister was not registered");
}

int is_pinned(void* self, const void* pointer) {
  PrefetchDriver& layer = layer_of(self);
  return !layer.forked() && layer.pinned().contains(pointer, 1) ? 1 : 0;
}

// What we hold is there for the program: we let go of it on demand.
int memory_info(void* self, std::int32_t device, PipellmMemoryInfo* out) {
  PrefetchDriver& layer = layer_of(self);
  const int status = layer.below(&PipellmDriver::memory_info, device, out);
  if (status != PIPELLM_OK || layer.forked()) return status;
  if (const Device* const used = layer.device_if_used(device)) {
    out->allocated -= std::min(out->allocated, used->all_held());
  }
  return status;
}

int copy(void* self, const PipellmCopy* request) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return layer.below(&PipellmDriver::copy, request);
  int status = PIPELLM_OK;
  if (layer.device(request->device, status) == nullptr) {
    if (request->release != nullptr) request->release(request->token);
    return status;
  }
  return on(self, request->device, [&](Device& device) { return device.copy(*request); });
}

int sync(void* self, std::int32_t number, std::int32_t scope, std::int64_t stream) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return layer.below(&PipellmDriver::sync, number, scope, stream);
  return on(self, number, [&](Device& device) { return device.sync(scope, stream); });
}

// An entry that puts something on a stream.
template <typename... Parameters>
int put(void* self,
        int (*PipellmDriver::*entry)(void*, std::int32_t, std::int64_t, Parameters...),
        std::int32_t number, std::int64_t stream,
        std::type_identity_t<Parameters>... rest) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return layer.below(entry, number, stream, rest...);
  return on(self, number, [&](Device& device) {
    device.before_work(stream);
    return device.settled(layer.below(entry, number, stream, rest...));
  });
}

int launch(void* self, std::int32_t device, std::int64_t stream) {
  return put(self, &PipellmDriver::launch, device, stream);
}

int busy(void* self, std::int32_t device, std::int64_t stream, std::int64_t nanoseconds) {
  return put(self, &PipellmDriver::busy, device, stream, nanoseconds);
}

int stream_query(void* self, std::int32_t number, std::int64_t stream) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return layer.below(&PipellmDriver::stream_query, number, stream);
  return on(self, number, [&](Device& device) { return device.stream_query(stream); });
}

LayerEvent& event_of(void* event) { return *static_cast<LayerEvent*>(event); }

int event_create(void* self, std::int32_t device, void** out) {
  const PrefetchDriver& layer = layer_of(self);
  void* event = nullptr;
  const int status = layer.below(&PipellmDriver::event_create, device, &event);
  if (status == PIPELLM_OK) *out = new LayerEvent{event, device, {}, {}};
  return status;
}

int event_destroy(void* self, void* event) {
  const PrefetchDriver& layer = layer_of(self);
  if (event == nullptr) return PIPELLM_OK;
  const int status = layer.below(&PipellmDriver::event_destroy, event_of(event).below);
  delete &event_of(event);
  return status;
}

int event_record(void* self, void* event, std::int64_t stream) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) {
    return layer.below(&PipellmDriver::event_record, event_of(event).below, stream);
  }
  return on(self, event_of(event).device,
            [&](Device& device) { return device.event_record(event_of(event), stream); });
}

int event_query(void* self, void* event) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) return layer.below(&PipellmDriver::event_query, event_of(event).below);
  return on(self, event_of(event).device,
            [&](Device& device) { return device.event_query(event_of(event)); });
}

int event_synchronize(void* self, void* event) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) {
    return layer.below(&PipellmDriver::event_synchronize, event_of(event).below);
  }
  return on(self, event_of(event).device,
            [&](Device& device) { return device.event_synchronize(event_of(event)); });
}

int event_elapsed(void* self, void* start, void* end, double* milliseconds) {
  const PrefetchDriver& layer = layer_of(self);
  return layer.below(&PipellmDriver::event_elapsed, event_of(start).below, event_of(end).below,
                     milliseconds);
}

int stream_wait_event(void* self, std::int32_t number, std::int64_t stream, void* event) {
  PrefetchDriver& layer = layer_of(self);
  if (layer.forked()) {
    return layer.below(&PipellmDriver::stream_wait_event, number, stream, event_of(event).below);
  }
  return on(self, number,
            [&](Device& device) { return device.stream_wait_event(stream, event_of(event)); });
}

int copy_on_device(void* self, std::int32_t device, std::int64_t stream,
                   const PipellmDeviceCopy* copies, std::uint64_t count) {
  return put(self, &PipellmDriver::copy_on_device, device, stream, copies, count);
}

int fill(void* self, std::int32_t device, std::int64_t stream, void* destination,
         std::int32_t byte, std::uint64_t nbytes) {
  return put(self, &PipellmDriver::fill, device, stream, destination, byte, nbytes);
}

int stream_write_value(void* self, std::int32_t device, std::int64_t stream, void* word,
                       std::uint32_t value) {
  return put(self, &PipellmDriver::stream_write_value, device, stream, word, value);
}

int stream_wait_value(void* self, std::int32_t device, std::int64_t stream,
                      const void* word, std::uint32_t value) {
  return put(self, &PipellmDriver::stream_wait_value, device, stream, word, value);
}

}  // namespace

// What is left out asks the table below.
void put_entries(PipellmDriver& api) {
  api.last_error = pipellm::last_error;  // of faults that we met ourselves, too
  api.in_bad_fork = in_bad_fork;
  api.malloc = allocate;
  api.free = release;
  api.host_alloc = host_alloc;
  api.host_free = host_free;
  api.host_register = host_register;
  api.host_unregister = host_unregister;
  api.is_pinned = is_pinned;
  api.memory_info = memory_info;
  api.copy = copy;
  api.sync = sync;
  api.launch = launch;
  api.busy = busy;
  api.stream_query = stream_query;
  api.event_create = event_create;
  api.event_destroy = event_destroy;
  api.event_record = event_record;
  api.event_query = event_query;
  api.event_synchronize = event_synchronize;
  api.event_elapsed = event_elapsed;
  api.stream_wait_event = stream_wait_event;
  api.copy_on_device = copy_on_device;
  api.fill = fill;
  api.stream_write_value = stream_write_value;
  api.stream_wait_value = stream_wait_value;
}

}  // namespace pipellm::prefetch
