// The pipelined layer's entries. Before a stream is waited for, or something is ordered after it, what
// it was given is sent; and it is done with a swap-out when its bytes are home.
#include "link/status.h"
#include "pipelined/pipelined.h"

// Entries have the names of other tables' entries: hence the namespace.
namespace pipellm::pipelining {

namespace {

// An event of the layer's own: the one below, and what it saw. The receipt is written by `event_record`
// and read by others at any time.
struct PipelinedEvent {
  int device;
  void* below;
  std::atomic<Receipt> receipt{0};
};

PipelinedEvent& event_at(void* handle) { return *static_cast<PipelinedEvent*>(handle); }

Pipelined& layer_of(void* self) { return static_cast<Pipelined&>(*static_cast<Layer*>(self)); }

template <typename Body>
int with_layer(void* self, Body body) {
  return guarded([&] { return body(layer_of(self)); });
}

// `status` is the table's below. A context that it found lost is settled up here, too.
int settled(Pipeline& pipeline, int status) {
  if (status == PIPELLM_CONTEXT_LOST) pipeline.settle_if_lost();
  return status;
}

// The same, and what the program waited for is home.
int arrived(Pipeline& pipeline, int status, Receipt receipt) {
  if (status != PIPELLM_OK) return settled(pipeline, status);
  pipeline.await(receipt);
  pipeline.reap();
  return PIPELLM_OK;
}

int allocate(void* self, std::int32_t device, std::uint64_t nbytes, void** out) {
  return with_layer(self, [&](Pipelined& layer) {
    Pipeline& pipeline = layer.pipeline(device);
    const int status = layer.below(&PipellmDriver::malloc, device, nbytes, out);
    if (status != PIPELLM_OUT_OF_MEMORY) return status;
    pipeline.finish_and_reap();  // copies may be all that keeps memory alive
    return layer.below(&PipellmDriver::malloc, device, nbytes, out);
  });
}

int host_free(void* self, void* pointer) {
  return with_layer(self, [&](Pipelined& layer) {
    if (pointer != nullptr) {
      layer.stop_reading(pointer, layer.driver().pinned().size_of(pointer));
    }
    return layer.below(&PipellmDriver::host_free, pointer);
  });
}

int copy(void* self, const PipellmCopy* request) {
  // The pipeline takes over the token even when it fails; before there is one, it is ours.
  Pipeline* pipeline = nullptr;
  const int status = with_layer(self, [&](Pipelined& layer) {
    if (request->nbytes == 0) return;
    pipeline = &layer.pipeline(request->device, request->stream);
  });
  if (pipeline != nullptr) return guarded([&] { pipeline->copy(*request); });
  if (status == PIPELLM_OK) return layer_of(self).below(&PipellmDriver::copy, request);
  if (request->release != nullptr) request->release(request->token);
  return status;
}

int sync(void* self, std::int32_t device, std::int32_t scope, std::int64_t stream) {
  return with_layer(self, [&](Pipelined& layer) {
    const bool all = scope == PIPELLM_SYNC_DEVICE;
    Pipeline& pipeline = all ? layer.pipeline(device) : layer.pipeline(device, stream);
    pipeline.flush(all ? std::nullopt : std::optional(stream));
    const Receipt due = all ? pipeline.last_due() : pipeline.due(stream);
    return arrived(pipeline, layer.below(&PipellmDriver::sync, device, scope, stream), due);
  });
}

int launch(void* self, std::int32_t device, std::int64_t stream) {
  return with_layer(self, [&](Pipelined& layer) {
    Pipeline& pipeline = layer.pipeline(device);
    pipeline.order(stream);
    const Receipt due = pipeline.due(stream);
    return arrived(pipeline, layer.below(&PipellmDriver::launch, device, stream), due);
  });
}

int busy(void* self, std::int32_t device, std::int64_t stream, std::int64_t nanoseconds) {
  return with_layer(self, [&](Pipelined& layer) {
    layer.pipeline(device, stream).order(stream);
    return layer.below(&PipellmDriver::busy, device, stream, nanoseconds);
  });
}

int stream_query(void* self, std::int32_t device, std::int64_t stream) {
  return with_layer(self, [&](Pipelined& layer) {
    Pipeline& pipeline = layer.pipeline(device, stream);
    pipeline.order(stream);
    const Receipt due = pipeline.due(stream);
    return arrived(pipeline, layer.below(&PipellmDriver::stream_query, device, stream), due);
  });
}

int event_create(void* self, std::int32_t device, void** out) {
  return with_layer(self, [&](Pipelined& layer) {
    void* below = nullptr;
    const int status = layer.below(&PipellmDriver::event_create, device, &below);
    if (status == PIPELLM_OK) *out = new PipelinedEvent{.device = device, .below = below};
    return status;
  });
}

int event_destroy(void* self, void* handle) {
  const int status = layer_of(self).below(&PipellmDriver::event_destroy, event_at(handle).below);
  delete &event_at(handle);
  return status;
}

int event_record(void* self, void* handle, std::int64_t stream) {
  return with_layer(self, [&](Pipelined& layer) {
    PipelinedEvent& event = event_at(handle);
    Pipeline& pipeline = layer.pipeline(event.device, stream);
    pipeline.order(stream);
    event.receipt = pipeline.due(stream);
    return settled(pipeline, layer.below(&PipellmDriver::event_record, event.below, stream));
  });
}

int event_query(void* self, void* handle) {
  return with_layer(self, [&](Pipelined& layer) {
    const PipelinedEvent& event = event_at(handle);
    Pipeline& pipeline = layer.pipeline(event.device);
    const Receipt due = event.receipt;
    return arrived(pipeline, layer.below(&PipellmDriver::event_query, event.below), due);
  });
}

int event_synchronize(void* self, void* handle) {
  return with_layer(self, [&](Pipelined& layer) {
    const PipelinedEvent& event = event_at(handle);
    Pipeline& pipeline = layer.pipeline(event.device);
    pipeline.flush(std::nullopt);
    const Receipt due = event.receipt;
    return arrived(pipeline, layer.below(&PipellmDriver::event_synchronize, event.below), due);
  });
}

int event_elapsed(void* self, void* start_handle, void* end_handle, double* milliseconds) {
  return with_layer(self, [&](Pipelined& layer) {
    const PipelinedEvent& start = event_at(start_handle);
    const PipelinedEvent& end = event_at(end_handle);
    Pipeline& of_start = layer.pipeline(start.device);
    Pipeline& of_end = layer.pipeline(end.device);
    const int status =
        layer.below(&PipellmDriver::event_elapsed, start.below, end.below, milliseconds);
    const int first = arrived(of_start, status, start.receipt);
    return first == PIPELLM_OK ? arrived(of_end, status, end.receipt) : settled(of_end, first);
  });
}

int stream_wait_event(void* self, std::int32_t device, std::int64_t stream, void* handle) {
  return with_layer(self, [&](Pipelined& layer) {
    const PipelinedEvent& event = event_at(handle);
    Pipeline& pipeline = layer.pipeline(device, stream);
    pipeline.order(stream);
    const Receipt due = event.receipt;
    if (event.device == device) {
      pipeline.inherit(stream, due);
    } else {
      layer.pipeline(event.device).await(due);  // a stream has receipts of its own device only
    }
    return settled(pipeline, layer.below(&PipellmDriver::stream_wait_event, device, stream,
                                         event.below));
  });
}

// What works on device memory sees what its stream was given; what is not home yet is still read there.
template <typename... Parameters>
int within_device(void* self,
                  int (*PipellmDriver::*entry)(void*, std::int32_t, std::int64_t, Parameters...),
                  std::int32_t device, std::int64_t stream,
                  std::type_identity_t<Parameters>... rest) {
  return with_layer(self, [&](Pipelined& layer) {
    Pipeline& pipeline = layer.pipeline(device, stream);
    pipeline.order(stream);
    pipeline.await(pipeline.due(stream));
    return settled(pipeline, layer.below(entry, device, stream, rest...));
  });
}

int copy_on_device(void* self, std::int32_t device, std::int64_t stream,
                   const PipellmDeviceCopy* copies, std::uint64_t count) {
  return within_device(self, &PipellmDriver::copy_on_device, device, stream, copies, count);
}

int fill(void* self, std::int32_t device, std::int64_t stream, void* destination,
         std::int32_t byte, std::uint64_t nbytes) {
  return within_device(self, &PipellmDriver::fill, device, stream, destination, byte, nbytes);
}

int stream_write_value(void* self, std::int32_t device, std::int64_t stream, void* word,
                       std::uint32_t value) {
  return within_device(self, &PipellmDriver::stream_write_value, device, stream, word, value);
}

int stream_wait_value(void* self, std::int32_t device, std::int64_t stream, const void* word,
                      std::uint32_t value) {
  return within_device(self, &PipellmDriver::stream_wait_value, device, stream, word, value);
}

}  // namespace

void put_entries(PipellmDriver& api) {
  api.malloc = allocate;
  api.host_free = host_free;
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

}  // namespace pipellm::pipelining
