// The C table of the emulated driver.
#include "emulator/driver.h"
#include "link/driver_api.h"
#include "link/status.h"

namespace pipellm {

namespace {

static_assert(int{kH2d} == int{PIPELLM_H2D} && int{kD2h} == int{PIPELLM_D2H});

template <typename Body>
int with_driver(void* self, Body body) {
  return guarded([&] {
    auto& driver = *static_cast<Driver*>(self);
    const Modelled modelled(*driver.clock());
    return body(driver);
  });
}

int device_count(void* self) { return static_cast<Driver*>(self)->devices(); }
int in_bad_fork(void* self) { return static_cast<Driver*>(self)->in_bad_fork() ? 1 : 0; }
int confidential(void* self) { return static_cast<Driver*>(self)->confidential() ? 1 : 0; }

int allocate(void* self, std::int32_t device, std::uint64_t nbytes, void** out) {
  return with_driver(self, [&](Driver& driver) { *out = driver.allocate(device, nbytes); });
}

int release(void* self, void* pointer) {
  return with_driver(self, [&](Driver& driver) { driver.free(pointer); });
}

int host_alloc(void* self, std::uint64_t nbytes, void** out) {
  return with_driver(self, [&](Driver& driver) { *out = driver.allocate_host(nbytes); });
}

int host_free(void* self, void* pointer) {
  return with_driver(self, [&](Driver& driver) { driver.free_host(pointer); });
}

int host_register(void* self, void* pointer, std::uint64_t nbytes) {
  return with_driver(self, [&](Driver& driver) { driver.register_host(pointer, nbytes); });
}

int host_unregister(void* self, void* pointer) {
  return with_driver(self, [&](Driver& driver) { driver.unregister_host(pointer); });
}

int is_pinned(void* self, const void* pointer) {
  return static_cast<Driver*>(self)->is_pinned(pointer) ? 1 : 0;
}

int device_of(void* self, const void* pointer) {
  return static_cast<Driver*>(self)->device_of(pointer);
}

int memory_info(void* self, std::int32_t device, PipellmMemoryInfo* out) {
  return with_driver(self, [&](Driver& driver) {
    const MemoryUse use = driver.context(device).memory().use();
    *out = {use.total, use.allocated};
  });
}

int copy(void* self, const PipellmCopy* request) {
  // The context takes over the token even when it fails; before there is a context, it is ours.
  bool taken_over = false;
  const int status = with_driver(self, [&](Driver& driver) {
    Context& context = driver.context(request->device, request->stream);
    taken_over = true;
    context.copy(*request);
  });
  if (!taken_over && request->release != nullptr) request->release(request->token);
  return status;
}

int sync(void* self, std::int32_t device, std::int32_t scope, std::int64_t stream) {
  return with_driver(self, [&](Driver& driver) {
    if (scope == PIPELLM_SYNC_DEVICE) {
      driver.context(device).synchronize();
    } else {
      driver.context(device, stream).synchronize(stream);
    }
  });
}

int launch(void* self, std::int32_t device, std::int64_t stream) {
  return with_driver(self, [&](Driver& driver) { driver.context(device).launch(stream); });
}

int busy(void* self, std::int32_t device, std::int64_t stream, std::int64_t nanoseconds) {
  return with_driver(self, [&](Driver& driver) {
    if (nanoseconds < 0) throw DriverError(PIPELLM_INVALID_VALUE, "work cannot take negative time");
    driver.context(device, stream).busy(stream, nanoseconds);
  });
}

int stream_create(void* self, std::int32_t device, std::int64_t* out) {
  return with_driver(self, [&](Driver& driver) { *out = driver.context(device).create_stream(); });
}

int stream_query(void* self, std::int32_t device, std::int64_t stream) {
  return with_driver(self, [&](Driver& driver) {
    return driver.context(device, stream).finished(stream) ? PIPELLM_OK : PIPELLM_NOT_READY;
  });
}

int event_create(void* self, std::int32_t device, void** out) {
  return with_driver(self, [&](Driver& driver) {
    driver.context(device);
    *out = new Event{device, nullptr};
  });
}

int event_destroy(void*, void* event) {
  delete static_cast<Event*>(event);
  return PIPELLM_OK;
}

int event_record(void* self, void* handle, std::int64_t stream) {
  return with_driver(self, [&](Driver& driver) {
    auto& event = *static_cast<Event*>(handle);
    driver.context(event.device, stream).record(event, stream);
  });
}

int event_query(void* self, void* handle) {
  return with_driver(self, [&](Driver& driver) {
    const auto& event = *static_cast<const Event*>(handle);
    return driver.context(event.device).finished(event) ? PIPELLM_OK : PIPELLM_NOT_READY;
  });
}

int event_synchronize(void* self, void* handle) {
  return with_driver(self, [&](Driver& driver) {
    const auto& event = *static_cast<const Event*>(handle);
    driver.context(event.device).synchronize(event);
  });
}

int event_elapsed(void* self, void* start_handle, void* end_handle, double* milliseconds) {
  return with_driver(self, [&](Driver& driver) {
    const auto& start = *static_cast<const Event*>(start_handle);
    const auto& end = *static_cast<const Event*>(end_handle);
    if (start.mark == nullptr || end.mark == nullptr) {
      throw DriverError(PIPELLM_INVALID_HANDLE, "both events must be recorded before their distance");
    }
    Context& first = driver.context(start.device);
    Context& last = driver.context(end.device);
    if (!first.finished(start) || !last.finished(end)) {
      throw DriverError(PIPELLM_NOT_READY, "both events must be over before their distance is known");
    }
    *milliseconds = static_cast<double>(*last.time_of(end) - *first.time_of(start)) / 1e6;
  });
}

int stream_wait_event(void* self, std::int32_t device, std::int64_t stream, void* handle) {
  return with_driver(self, [&](Driver& driver) {
    const auto& event = *static_cast<const Event*>(handle);
    Context& context = driver.context(device, stream);
    if (event.device == device) {
      context.wait_event(stream, event);
    } else {
      context.wait_until(stream, driver.context(event.device).await_bytes(event));
    }
  });
}

// Throws DriverError unless all of it is memory of this device.
void require_device_memory(Context& context, const void* start, std::uint64_t nbytes) {
  if (context.memory().contains(start, nbytes)) return;
  throw DriverError(PIPELLM_INVALID_VALUE, "what is copied or set on a GPU must be its own memory");
}

int copy_on_device(void* self, std::int32_t device, std::int64_t stream,
                   const PipellmDeviceCopy* copies, std::uint64_t count) {
  return with_driver(self, [&](Driver& driver) {
    Context& context = driver.context(device, stream);
    std::vector<PipellmDeviceCopy> all(copies, copies + count);
    for (const PipellmDeviceCopy& copy : all) {
      require_device_memory(context, copy.source, copy.nbytes);
      require_device_memory(context, copy.destination, copy.nbytes);
    }
    context.copy_on_device(stream, std::move(all));
  });
}

int fill(void* self, std::int32_t device, std::int64_t stream, void* destination,
         std::int32_t byte, std::uint64_t nbytes) {
  return with_driver(self, [&](Driver& driver) {
    Context& context = driver.context(device, stream);
    require_device_memory(context, destination, nbytes);
    context.fill(stream, destination, static_cast<std::uint8_t>(byte), nbytes);
  });
}

// Calls `body` with the context and the word, which it checks.
template <typename Body>
int with_word(void* self, std::int32_t device, std::int64_t stream, const void* word, Body body) {
  return with_driver(self, [&](Driver& driver) {
    Context& context = driver.context(device, stream);
    require_device_memory(context, word, sizeof(std::uint32_t));
    if (reinterpret_cast<std::uintptr_t>(word) % sizeof(std::uint32_t) != 0) {
      throw DriverError(PIPELLM_INVALID_VALUE, "a word that a stream waits for must be aligned");
    }
    body(context, const_cast<std::uint32_t*>(static_cast<const std::uint32_t*>(word)));
  });
}

int stream_write_value(void* self, std::int32_t device, std::int64_t stream, void* word,
                       std::uint32_t value) {
  return with_word(self, device, stream, word, [&](Context& context, std::uint32_t* checked) {
    context.write_value(stream, checked, value);
  });
}

int stream_wait_value(void* self, std::int32_t device, std::int64_t stream, const void* word,
                      std::uint32_t value) {
  return with_word(self, device, stream, word, [&](Context& context, std::uint32_t* checked) {
    context.wait_value(stream, checked, value);
  });
}

}  // namespace

PipellmDriver make_driver_api(Driver& driver) {
  return PipellmDriver{
      .abi = PIPELLM_DRIVER_ABI,
      .size = sizeof(PipellmDriver),
      .self = &driver,
      .last_error = last_error,
      .device_count = device_count,
      .in_bad_fork = in_bad_fork,
      .confidential = confidential,
      .malloc = allocate,
      .free = release,
      .host_alloc = host_alloc,
      .host_free = host_free,
      .host_register = host_register,
      .host_unregister = host_unregister,
      .is_pinned = is_pinned,
      .device_of = device_of,
      .memory_info = memory_info,
      .copy = copy,
      .sync = sync,
      .launch = launch,
      .busy = busy,
      .operated = nullptr,
      .stream_create = stream_create,
      .stream_query = stream_query,
      .event_create = event_create,
      .event_destroy = event_destroy,
      .event_record = event_record,
      .event_query = event_query,
      .event_synchronize = event_synchronize,
      .event_elapsed = event_elapsed,
      .stream_wait_event = stream_wait_event,
      .copy_on_device = copy_on_device,
      .fill = fill,
      .stream_write_value = stream_write_value,
      .stream_wait_value = stream_wait_value,
  };
}

}  // namespace pipellm
