// The recorder's entries: each notes what is asked, then asks the table below.
#include "recorder/recorder.h"

// Entries have the names of other tables' entries: hence the namespace.
namespace pipellm::recording {

namespace {

Recorder& recorder_of(void* self) { return static_cast<Recorder&>(*static_cast<Layer*>(self)); }

// When the operator that this thread is at was launched.
thread_local Nanoseconds launched = 0;

RecordedEvent event_of(RecordedEvent::Kind kind, int device, std::int64_t stream) {
  RecordedEvent event{};
  event.kind = kind;
  event.device = static_cast<std::uint16_t>(device);
  event.stream = stream;
  return event;
}

// Notes `event`, and whatever comes of `call`.
template <typename Call>
int record(void* self, const RecordedEvent& event, Call call) {
  Recorder& recorder = recorder_of(self);
  RecordedEvent* const noted = recorder.begin(event);
  const int status = call();
  recorder.finish(noted, status);
  return status;
}

int copy(void* self, const PipellmCopy* request) {
  const auto go_on = [&] { return recorder_of(self).below(&PipellmDriver::copy, request); };
  const bool in_bad_fork = recorder_of(self).below(&PipellmDriver::in_bad_fork) != 0;
  if (request->nbytes == 0 || in_bad_fork) return go_on();
  const bool to_host = request->direction == PIPELLM_D2H;
  const void* const host = to_host ? request->destination : request->source;
  const void* const device = to_host ? request->source : request->destination;
  const bool pinned = recorder_of(self).pinned().contains(host, request->nbytes);

  RecordedEvent event = event_of(RecordedEvent::kCopy, request->device, request->stream);
  event.address = reinterpret_cast<std::uintptr_t>(host);
  event.nbytes = request->nbytes;
  event.device_address = reinterpret_cast<std::uintptr_t>(device);
  if (pinned) event.flags |= RecordedEvent::kPinned;
  if (!pinned || request->asynchronous == 0) event.flags |= RecordedEvent::kBlocking;
  if (to_host) {
    event.flags |= RecordedEvent::kToHost;
    recorder_of(self).overwritten(host, request->nbytes);
  } else if (recorder_of(self).changed(host, request->nbytes)) {
    event.flags |= RecordedEvent::kChanged;
  }
  return record(self, event, go_on);
}

int sync(void* self, std::int32_t device, std::int32_t scope, std::int64_t stream) {
  const auto kind =
      scope == PIPELLM_SYNC_DEVICE ? RecordedEvent::kSyncDevice : RecordedEvent::kSyncStream;
  return record(self, event_of(kind, device, stream),
                [&] { return recorder_of(self).below(&PipellmDriver::sync, device, scope, stream); });
}

int launch(void* self, std::int32_t device, std::int64_t stream) {
  launched = recorder_of(self).clock().now();
  return recorder_of(self).below(&PipellmDriver::launch, device, stream);
}

int operated(void* self, std::int32_t device, std::int64_t stream, double flops,
             std::uint64_t nbytes) {
  recorder_of(self).operated(device, stream, flops, nbytes, launched);
  return PIPELLM_OK;
}

int event_create(void* self, std::int32_t device, void** out) {
  const int status = recorder_of(self).below(&PipellmDriver::event_create, device, out);
  if (status == PIPELLM_OK) recorder_of(self).event_created(*out, device);
  return status;
}

int event_destroy(void* self, void* event) {
  recorder_of(self).event_destroyed(event);
  return recorder_of(self).below(&PipellmDriver::event_destroy, event);
}

int event_record(void* self, void* event, std::int64_t stream) {
  const int status = recorder_of(self).below(&PipellmDriver::event_record, event, stream);
  if (status == PIPELLM_OK) recorder_of(self).event_recorded(event, stream);
  return status;
}

// The program waits for what a stream was given up to the event. A trace says: for the stream.
int event_synchronize(void* self, void* handle) {
  const auto go_on = [&] {
    return recorder_of(self).below(&PipellmDriver::event_synchronize, handle);
  };
  const auto place = recorder_of(self).event_place(handle);
  if (!place) return go_on();
  return record(self, event_of(RecordedEvent::kSyncStream, place->device, place->stream), go_on);
}

int stream_wait_event(void* self, std::int32_t device, std::int64_t stream, void* handle) {
  const auto go_on = [&] {
    return recorder_of(self).below(&PipellmDriver::stream_wait_event, device, stream, handle);
  };
  const auto place = recorder_of(self).event_place(handle);
  if (!place || place->device != device) return go_on();
  if (place->stream == stream) return go_on();  // its order says so already
  RecordedEvent event = event_of(RecordedEvent::kStreamWait, device, stream);
  event.awaited = place->stream;
  return record(self, event, go_on);
}

}  // namespace

void put_entries(PipellmDriver& api) {
  api.copy = copy;
  api.sync = sync;
  api.launch = launch;
  api.operated = operated;
  api.event_create = event_create;
  api.event_destroy = event_destroy;
  api.event_record = event_record;
  api.event_synchronize = event_synchronize;
  api.stream_wait_event = stream_wait_event;
}

}  // namespace pipellm::recording
