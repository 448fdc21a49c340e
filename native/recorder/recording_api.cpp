// The driver's C table, recording: each entry notes what is asked, then asks the plain table.
#include "emulator/driver.h"
#include "recorder/recorder.h"

namespace pipellm {

namespace {

Driver& driver_of(void* self) { return *static_cast<Driver*>(self); }
Recorder& recorder_of(void* self) { return *driver_of(self).recorder(); }
const PipellmDriver& plain(void* self) { return recorder_of(self).plain(); }

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
  const auto go_on = [&] { return plain(self).copy(self, request); };
  if (request->nbytes == 0 || driver_of(self).in_bad_fork()) return go_on();
  const bool to_host = request->direction == PIPELLM_D2H;
  const void* const host = to_host ? request->destination : request->source;
  const void* const device = to_host ? request->source : request->destination;
  const bool pinned = driver_of(self).pinned().contains(host, request->nbytes);

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
                [&] { return plain(self).sync(self, device, scope, stream); });
}

int launch(void* self, std::int32_t device, std::int64_t stream) {
  launched = recorder_of(self).clock().now();
  return plain(self).launch(self, device, stream);
}

int operated(void* self, std::int32_t device, std::int64_t stream, double flops,
             std::uint64_t nbytes) {
  recorder_of(self).operated(device, stream, flops, nbytes, launched);
  return PIPELLM_OK;
}

int event_destroy(void* self, void* event) {
  recorder_of(self).event_destroyed(event);
  return plain(self).event_destroy(self, event);
}

int event_record(void* self, void* event, std::int64_t stream) {
  const int status = plain(self).event_record(self, event, stream);
  if (status == PIPELLM_OK) recorder_of(self).event_recorded(event, stream);
  return status;
}

// The program waits for what a stream was given up to the event. A trace says: for the stream.
int event_synchronize(void* self, void* handle) {
  const auto go_on = [&] { return plain(self).event_synchronize(self, handle); };
  std::int64_t stream = 0;
  if (!recorder_of(self).event_stream(handle, &stream)) return go_on();
  const int device = static_cast<const Event*>(handle)->device;
  return record(self, event_of(RecordedEvent::kSyncStream, device, stream), go_on);
}

int stream_wait_event(void* self, std::int32_t device, std::int64_t stream, void* handle) {
  const auto go_on = [&] { return plain(self).stream_wait_event(self, device, stream, handle); };
  RecordedEvent event = event_of(RecordedEvent::kStreamWait, device, stream);
  const bool here = static_cast<const Event*>(handle)->device == device;
  if (!here || !recorder_of(self).event_stream(handle, &event.awaited)) return go_on();
  if (event.awaited == stream) return go_on();  // its order says so already
  return record(self, event, go_on);
}

}  // namespace

PipellmDriver make_recording_api(const PipellmDriver& plain_table) {
  PipellmDriver table = plain_table;
  table.copy = copy;
  table.sync = sync;
  table.launch = launch;
  table.operated = operated;
  table.event_destroy = event_destroy;
  table.event_record = event_record;
  table.event_synchronize = event_synchronize;
  table.stream_wait_event = stream_wait_event;
  return table;
}

}  // namespace pipellm
