#include "prefetch/prefetch_driver.h"

#include <atomic>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_map>

#include "base/fork.h"
#include "link/errors.h"
#include "link/layer.h"
#include "link/status.h"
#include "memory/address_ranges.h"
#include "memory/pinned_memory.h"
#include "prefetch/device.h"

namespace pipellm::prefetch {

namespace {

// Notes why, as the thread's last error.
int refused(PipellmStatus status, const std::string& why) {
  return guarded([&]() -> int { throw DriverError(status, why); });
}

}  // namespace

class PrefetchDriver::State final : public Layer, private ForkAware {
 public:
  State(const PipellmDriver& table, const Options& options);
  ~State() override {
    if (forked_) return;  // what the parent made is not the child's to take apart
    for (auto& device : devices_) delete device.load();
  }

  // The table below answers alone: no thread of ours is there, and locks may be held for ever.
  bool forked() const { return forked_; }
  PinnedMemory& pinned() { return pinned_; }
  AddressRanges& never_ahead() { return never_ahead_; }

  Device* device_if_used(std::int32_t number) {
    if (number < 0 || static_cast<std::size_t>(number) >= devices_.size()) return nullptr;
    return devices_[static_cast<std::size_t>(number)].load(std::memory_order_acquire);
  }

  // nullptr, with the status that the driver below gave.
  Device* device(std::int32_t number, int& status) {
    if (Device* const made = device_if_used(number)) return made;
    status = PIPELLM_INVALID_DEVICE;
    if (number < 0 || static_cast<std::size_t>(number) >= devices_.size()) {
      status = refused(PIPELLM_INVALID_DEVICE, "there is no GPU " + std::to_string(number));
      return nullptr;
    }
    used_ = true;  // before the lock: a child that finds it taken must know not to wait for it
    const std::lock_guard lock(mutex_);
    auto& slot = devices_[static_cast<std::size_t>(number)];
    if (Device* const made = slot.load()) return made;
    auto made = std::make_unique<Device>(table_, number, options_, pinned_, never_ahead_);
    status = made->open();
    if (status != PIPELLM_OK) return nullptr;
    if (stopped_) made->stop();
    slot.store(made.get(), std::memory_order_release);
    return made.release();
  }

  template <typename Body>
  void each_device(Body body) {
    for (auto& slot : devices_) {
      if (Device* const device = slot.load(std::memory_order_acquire)) body(*device);
    }
  }

  void stop() {
    if (forked_) return;
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    each_device([](Device& device) { device.stop(); });
  }

  // Device memory that the program has, by address.
  void add_block(const void* start, std::uint64_t nbytes) {
    const std::lock_guard lock(blocks_mutex_);
    blocks_[start] = nbytes;
  }
  std::uint64_t remove_block(const void* start) {
    const std::lock_guard lock(blocks_mutex_);
    const auto found = blocks_.find(start);
    if (found == blocks_.end()) return 0;
    const std::uint64_t nbytes = found->second;
    blocks_.erase(found);
    return nbytes;
  }

 private:
  void after_fork_in_child() noexcept override {
    if (!used_) return;
    forked_ = true;
    for (auto& slot : devices_) {
      if (Device* const device = slot.load()) device->forget_threads();
    }
  }

  const PipellmDriver& table_;  // below
  const Options options_;
  PinnedMemory pinned_;
  AddressRanges never_ahead_;
  std::mutex mutex_;  // held while a device is made
  bool stopped_ = false;
  std::vector<std::atomic<Device*>> devices_;  // owned
  std::atomic<bool> used_{false}, forked_{false};
  std::mutex blocks_mutex_;
  std::unordered_map<const void*, std::uint64_t> blocks_;
};

// The entries of the table. `self` is the State.
struct Entries {
  using State = PrefetchDriver::State;

  static State& state(void* self) { return static_cast<State&>(*static_cast<Layer*>(self)); }

  // Runs `body` with the device and gives what it returns; where there is none, why.
  template <typename Body>
  static int on(void* self, std::int32_t number, Body body) {
    State& layer = state(self);
    int status = PIPELLM_OK;
    Device* const device = layer.device(number, status);
    if (device == nullptr) return status;
    return guarded([&] {
      const int given = body(*device);
      const Fault& fault = device->fault();
      if (given == PIPELLM_OK || given != fault.status()) return given;
      return refused(static_cast<PipellmStatus>(given), fault.text());
    });
  }

  static int in_bad_fork(void* self) {
    const State& layer = state(self);
    return layer.forked() || layer.below(&PipellmDriver::in_bad_fork) != 0 ? 1 : 0;
  }

  static int allocate(void* self, std::int32_t device, std::uint64_t nbytes, void** out) {
    State& layer = state(self);
    int status = layer.below(&PipellmDriver::malloc, device, nbytes, out);
    if (layer.forked()) return status;
    Device* const used = layer.device_if_used(device);
    if (status == PIPELLM_OUT_OF_MEMORY && used != nullptr) {
      used->release_memory();
      status = layer.below(&PipellmDriver::malloc, device, nbytes, out);
    }
    if (status == PIPELLM_OK) layer.add_block(*out, nbytes);
    // Whoever gets memory must hear so: of a fault of ours, the next copy or wait tells.
    if (used != nullptr) (void)used->settled(status);
    return status;
  }

  static int release(void* self, void* pointer) {
    State& layer = state(self);
    if (!layer.forked() && pointer != nullptr) {
      const std::uint64_t nbytes = layer.remove_block(pointer);
      layer.each_device([&](Device& device) { device.before_free(pointer, nbytes); });
    }
    return layer.below(&PipellmDriver::free, pointer);
  }

  // Host memory is ours: the driver below need not know it, as it copies from and to memory of ours, or
  // on a thread that may wait.
  static int host_alloc(void* self, std::uint64_t nbytes, void** out) {
    State& layer = state(self);
    if (layer.forked()) return layer.below(&PipellmDriver::host_alloc, nbytes, out);
    *out = layer.pinned().allocate(nbytes);
    return *out != nullptr ? PIPELLM_OK : refused(PIPELLM_OUT_OF_MEMORY, "out of host memory");
  }
  static int host_free(void* self, void* pointer) {
    State& layer = state(self);
    if (pointer == nullptr || layer.forked()) return PIPELLM_OK;
    forget(layer, pointer, layer.pinned().size_of(pointer));
    if (layer.pinned().release(pointer)) return PIPELLM_OK;
    return refused(PIPELLM_INVALID_VALUE, "the pointer to free is no pinned memory");
  }
  static int host_register(void* self, void* pointer, std::uint64_t nbytes) {
    State& layer = state(self);
    if (layer.forked()) return layer.below(&PipellmDriver::host_register, pointer, nbytes);
    if (pointer == nullptr || nbytes == 0 || !layer.pinned().add(pointer, nbytes)) {
      return refused(PIPELLM_INVALID_VALUE, "the memory to register is empty or pinned already");
    }
    return PIPELLM_OK;
  }
  static int host_unregister(void* self, void* pointer) {
    State& layer = state(self);
    if (layer.forked()) return PIPELLM_OK;
    forget(layer, pointer, layer.pinned().registered(pointer));
    if (layer.pinned().remove(pointer)) return PIPELLM_OK;
    return refused(PIPELLM_INVALID_VALUE, "the memory to unregister was not registered");
  }
  static void forget(State& layer, const void* pointer, std::uint64_t nbytes) {
    if (nbytes == 0) return;
    layer.each_device([&](Device& device) { device.before_host_free(range_of(pointer, nbytes)); });
  }
  static int is_pinned(void* self, const void* pointer) {
    State& layer = state(self);
    return !layer.forked() && layer.pinned().contains(pointer, 1) ? 1 : 0;
  }
  // What we hold is there for the program: we let go of it on demand.
  static int memory_info(void* self, std::int32_t device, PipellmMemoryInfo* out) {
    State& layer = state(self);
    const int status = layer.below(&PipellmDriver::memory_info, device, out);
    if (status != PIPELLM_OK || layer.forked()) return status;
    if (const Device* const used = layer.device_if_used(device)) {
      out->allocated -= std::min(out->allocated, used->all_held());
    }
    return status;
  }

  static int copy(void* self, const PipellmCopy* request) {
    State& layer = state(self);
    if (layer.forked()) return layer.below(&PipellmDriver::copy, request);
    int status = PIPELLM_OK;
    if (layer.device(request->device, status) == nullptr) {
      if (request->release != nullptr) request->release(request->token);
      return status;
    }
    return on(self, request->device, [&](Device& device) { return device.copy(*request); });
  }

  static int sync(void* self, std::int32_t number, std::int32_t scope, std::int64_t stream) {
    State& layer = state(self);
    if (layer.forked()) return layer.below(&PipellmDriver::sync, number, scope, stream);
    return on(self, number, [&](Device& device) { return device.sync(scope, stream); });
  }

  // An entry that puts something on a stream.
  template <typename... Parameters>
  static int put(void* self,
                 int (*PipellmDriver::*entry)(void*, std::int32_t, std::int64_t, Parameters...),
                 std::int32_t number, std::int64_t stream,
                 std::type_identity_t<Parameters>... rest) {
    State& layer = state(self);
    if (layer.forked()) return layer.below(entry, number, stream, rest...);
    return on(self, number, [&](Device& device) {
      device.before_work(stream);
      return device.settled(layer.below(entry, number, stream, rest...));
    });
  }

  static int launch(void* self, std::int32_t device, std::int64_t stream) {
    return put(self, &PipellmDriver::launch, device, stream);
  }
  static int busy(void* self, std::int32_t device, std::int64_t stream, std::int64_t nanoseconds) {
    return put(self, &PipellmDriver::busy, device, stream, nanoseconds);
  }

  static int stream_query(void* self, std::int32_t number, std::int64_t stream) {
    State& layer = state(self);
    if (layer.forked()) return layer.below(&PipellmDriver::stream_query, number, stream);
    return on(self, number, [&](Device& device) { return device.stream_query(stream); });
  }

  static LayerEvent& event_of(void* event) { return *static_cast<LayerEvent*>(event); }

  static int event_create(void* self, std::int32_t device, void** out) {
    const State& layer = state(self);
    void* event = nullptr;
    const int status = layer.below(&PipellmDriver::event_create, device, &event);
    if (status == PIPELLM_OK) *out = new LayerEvent{event, device, {}, {}};
    return status;
  }
  static int event_destroy(void* self, void* event) {
    const State& layer = state(self);
    if (event == nullptr) return PIPELLM_OK;
    const int status = layer.below(&PipellmDriver::event_destroy, event_of(event).below);
    delete &event_of(event);
    return status;
  }
  static int event_record(void* self, void* event, std::int64_t stream) {
    State& layer = state(self);
    if (layer.forked()) {
      return layer.below(&PipellmDriver::event_record, event_of(event).below, stream);
    }
    return on(self, event_of(event).device,
              [&](Device& device) { return device.event_record(event_of(event), stream); });
  }
  static int event_query(void* self, void* event) {
    State& layer = state(self);
    if (layer.forked()) return layer.below(&PipellmDriver::event_query, event_of(event).below);
    return on(self, event_of(event).device,
              [&](Device& device) { return device.event_query(event_of(event)); });
  }
  static int event_synchronize(void* self, void* event) {
    State& layer = state(self);
    if (layer.forked()) {
      return layer.below(&PipellmDriver::event_synchronize, event_of(event).below);
    }
    return on(self, event_of(event).device,
              [&](Device& device) { return device.event_synchronize(event_of(event)); });
  }
  static int event_elapsed(void* self, void* start, void* end, double* milliseconds) {
    const State& layer = state(self);
    return layer.below(&PipellmDriver::event_elapsed, event_of(start).below, event_of(end).below,
                       milliseconds);
  }
  static int stream_wait_event(void* self, std::int32_t number, std::int64_t stream, void* event) {
    State& layer = state(self);
    if (layer.forked()) {
      return layer.below(&PipellmDriver::stream_wait_event, number, stream, event_of(event).below);
    }
    return on(self, number,
              [&](Device& device) { return device.stream_wait_event(stream, event_of(event)); });
  }

  static int copy_on_device(void* self, std::int32_t device, std::int64_t stream,
                            const PipellmDeviceCopy* copies, std::uint64_t count) {
    return put(self, &PipellmDriver::copy_on_device, device, stream, copies, count);
  }
  static int fill(void* self, std::int32_t device, std::int64_t stream, void* destination,
                  std::int32_t byte, std::uint64_t nbytes) {
    return put(self, &PipellmDriver::fill, device, stream, destination, byte, nbytes);
  }
  static int stream_write_value(void* self, std::int32_t device, std::int64_t stream, void* word,
                                std::uint32_t value) {
    return put(self, &PipellmDriver::stream_write_value, device, stream, word, value);
  }
  static int stream_wait_value(void* self, std::int32_t device, std::int64_t stream,
                               const void* word, std::uint32_t value) {
    return put(self, &PipellmDriver::stream_wait_value, device, stream, word, value);
  }

  // What is left out asks the table below.
  static void put_into(PipellmDriver& api) {
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
};

PrefetchDriver::State::State(const PipellmDriver& table, const Options& options)
    : Layer(table),
      table_(table),
      options_(options),
      devices_(static_cast<std::size_t>(below(&PipellmDriver::device_count))) {
  Entries::put_into(api_);
}

PrefetchDriver::PrefetchDriver(const PipellmDriver& below, const Options& options)
    : state_(std::make_unique<State>(below, options)) {}

PrefetchDriver::~PrefetchDriver() = default;

const PipellmDriver* PrefetchDriver::api() const { return &state_->api(); }

void PrefetchDriver::order(int device, std::vector<Order> orders) {
  if (state_->forked()) return;
  if (Device* const used = state_->device_if_used(device)) used->order(std::move(orders));
}

std::vector<News> PrefetchDriver::await_news(int device, std::int64_t nanoseconds) {
  if (state_->forked()) return {};
  Device* const used = state_->device_if_used(device);
  return used == nullptr ? std::vector<News>{} : used->await_news(nanoseconds);
}

std::uint64_t PrefetchDriver::held(int device) const {
  const Device* const used = state_->forked() ? nullptr : state_->device_if_used(device);
  return used == nullptr ? 0 : used->held();
}

void PrefetchDriver::never_ahead(Range range) {
  if (state_->forked()) return;
  state_->never_ahead().add(range.data(), range.nbytes);
  state_->each_device([&](Device& device) { device.stop_reading(range); });
}

bool PrefetchDriver::allow_ahead(Range range) {
  return !state_->forked() && state_->never_ahead().remove(range.data(), range.nbytes);
}

void PrefetchDriver::stop() { state_->stop(); }

}  // namespace pipellm::prefetch
