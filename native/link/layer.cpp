#include "link/layer.h"

#include <cstddef>

namespace pipellm {

// One that is left out would be called with a `self` that is not its own.
constexpr std::size_t kEntries = 31;
static_assert(sizeof(PipellmDriver) ==
              offsetof(PipellmDriver, last_error) + kEntries * sizeof(void*));

template <typename Result, typename... Arguments, Result (*PipellmDriver::*Entry)(void*, Arguments...)>
struct Layer::Forward<Entry> {
  static Result call(void* self, Arguments... arguments) {
    return static_cast<Layer*>(self)->below(Entry, arguments...);
  }
};

Layer::Layer(const PipellmDriver& below) : api_(below), below_(below) {
  api_.self = this;
#define PIPELLM_FORWARD(entry) \
  if (api_.entry != nullptr) api_.entry = Forward<&PipellmDriver::entry>::call
  PIPELLM_FORWARD(last_error);
  PIPELLM_FORWARD(device_count);
  PIPELLM_FORWARD(in_bad_fork);
  PIPELLM_FORWARD(confidential);
  PIPELLM_FORWARD(malloc);
  PIPELLM_FORWARD(free);
  PIPELLM_FORWARD(host_alloc);
  PIPELLM_FORWARD(host_free);
  PIPELLM_FORWARD(host_register);
  PIPELLM_FORWARD(host_unregister);
  PIPELLM_FORWARD(is_pinned);
  PIPELLM_FORWARD(device_of);
  PIPELLM_FORWARD(memory_info);
  PIPELLM_FORWARD(copy);
  PIPELLM_FORWARD(sync);
  PIPELLM_FORWARD(launch);
  PIPELLM_FORWARD(busy);
  PIPELLM_FORWARD(operated);
  PIPELLM_FORWARD(stream_create);
  PIPELLM_FORWARD(stream_query);
  PIPELLM_FORWARD(event_create);
  PIPELLM_FORWARD(event_destroy);
  PIPELLM_FORWARD(event_record);
  PIPELLM_FORWARD(event_query);
  PIPELLM_FORWARD(event_synchronize);
  PIPELLM_FORWARD(event_elapsed);
  PIPELLM_FORWARD(stream_wait_event);
  PIPELLM_FORWARD(copy_on_device);
  PIPELLM_FORWARD(fill);
  PIPELLM_FORWARD(stream_write_value);
  PIPELLM_FORWARD(stream_wait_value);
#undef PIPELLM_FORWARD
}

}  // namespace pipellm
