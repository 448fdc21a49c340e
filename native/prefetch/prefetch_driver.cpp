#include "prefetch/prefetch_driver.h"

#include <atomic>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "base/fork.h"
#include "link/errors.h"
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

class PrefetchDriver::State final : private ForkAware {
 public:
  State(const PipellmDriver& below, const Options& options)
      : below_(below),
        options_(options),
        devices_(static_cast<std::size_t>(below.device_count(below.self))) {}
  ~State() override {
    if (forked_) return;  // what the parent made is not the child's to take apart
    for (auto& device : devices_) delete device.load();
  }

  const PipellmDriver& below() const { return below_; }
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
    auto made = std::make_unique<Device>(below_, number, options_, pinned_, never_ahead_);
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

  PipellmDriver table{};

 private:
  void after_fork_in_child() noexcept override {
    if (!used_) return;
    forked_ = true;
    for (auto& slot : devices_) {
      if (Device* const device = slot.load()) device->forget_threads();
    }
  }

  const PipellmDriver below_;
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

  static State& state(void* self) { return *static_cast<State*>(self); }

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

  static int device_count(void* self) {
    const PipellmDriver& below = static_cast<State*>(self)->below();
    return below.device_count(below.self);
  }
  static int in_bad_fork(void* self) {
    const State& layer = *static_cast<State*>(self);
    return layer.forked() || layer.below().in_bad_fork(layer.below().self) != 0 ? 1 : 0;
  }
  static int confidential(void* self) {
    const PipellmDriver& below = static_cast<State*>(self)->below();
    return below.confidential(below.self);
  }

  static int allocate(void* self, std::int32_t device, std::uint64_t nbytes, void** out) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    int status = below.malloc(below.self, device, nbytes, out);
    if (layer.forked()) return status;
    Device* const used = layer.device_if_used(device);
    if (status == PIPELLM_OUT_OF_MEMORY && used != nullptr) {
      used->release_memory();
      status = below.malloc(below.self, device, nbytes, out);
    }
    if (status == PIPELLM_OK) layer.add_block(*out, nbytes);
    return used == nullptr ? status : used->settled(status);
  }

  static int release(void* self, void* pointer) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (!layer.forked() && pointer != nullptr) {
      const std::uint64_t nbytes = layer.remove_block(pointer);
      layer.each_device([&](Device& device) { device.before_free(pointer, nbytes); });
    }
    return below.free(below.self, pointer);
  }

  // Host memory is ours: the driver below need not know it, as it copies from and to memory of ours, or
  // on a thread that may wait.
  static int host_alloc(void* self, std::uint64_t nbytes, void** out) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.host_alloc(below.self, nbytes, out);
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
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.host_register(below.self, pointer, nbytes);
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
    State& layer = *static_cast<State*>(self);
    return !layer.forked() && layer.pinned().contains(pointer, 1) ? 1 : 0;
  }
  static int device_of(void* self, const void* pointer) {
    const PipellmDriver& below = static_cast<State*>(self)->below();
    return below.device_of(below.self, pointer);
  }
  // What we hold is there for the program: we let go of it on demand.
  static int memory_info(void* self, std::int32_t device, PipellmMemoryInfo* out) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    const int status = below.memory_info(below.self, device, out);
    if (status != PIPELLM_OK || layer.forked()) return status;
    if (const Device* const used = layer.device_if_used(device)) {
      out->allocated -= std::min(out->allocated, used->all_held());
    }
    return status;
  }

  static int copy(void* self, const PipellmCopy* request) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.copy(below.self, request);
    int status = PIPELLM_OK;
    if (layer.device(request->device, status) == nullptr) {
      if (request->release != nullptr) request->release(request->token);
      return status;
    }
    return on(self, request->device, [&](Device& device) { return device.copy(*request); });
  }

  static int sync(void* self, std::int32_t number, std::int32_t scope, std::int64_t stream) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.sync(below.self, number, scope, stream);
    return on(self, number, [&](Device& device) { return device.sync(scope, stream); });
  }

  // An entry that puts something on a stream.
  template <typename Call>
  static int put(void* self, std::int32_t number, std::int64_t stream, Call call) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return call(below);
    return on(self, number, [&](Device& device) {
      device.before_work(stream);
      return device.settled(call(below));
    });
  }

  static int launch(void* self, std::int32_t device, std::int64_t stream) {
    return put(self, device, stream, [=](const PipellmDriver& below) {
      return below.launch(below.self, device, stream);
    });
  }
  static int busy(void* self, std::int32_t device, std::int64_t stream, std::int64_t nanoseconds) {
    return put(self, device, stream, [=](const PipellmDriver& below) {
      return below.busy(below.self, device, stream, nanoseconds);
    });
  }
  static int operated(void* self, std::int32_t device, std::int64_t stream, double flops,
                      std::uint64_t nbytes) {
    const PipellmDriver& below = static_cast<State*>(self)->below();
    return below.operated(below.self, device, stream, flops, nbytes);
  }

  static int stream_create(void* self, std::int32_t device, std::int64_t* out) {
    const PipellmDriver& below = state(self).below();
    return below.stream_create(below.self, device, out);
  }
  static int stream_query(void* self, std::int32_t number, std::int64_t stream) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.stream_query(below.self, number, stream);
    return on(self, number, [&](Device& device) { return device.stream_query(stream); });
  }

  static LayerEvent& event_of(void* event) { return *static_cast<LayerEvent*>(event); }

  static int event_create(void* self, std::int32_t device, void** out) {
    const PipellmDriver& below = state(self).below();
    void* event = nullptr;
    const int status = below.event_create(below.self, device, &event);
    if (status == PIPELLM_OK) *out = new LayerEvent{event, device, {}, {}};
    return status;
  }
  static int event_destroy(void* self, void* event) {
    const PipellmDriver& below = state(self).below();
    if (event == nullptr) return PIPELLM_OK;
    const int status = below.event_destroy(below.self, event_of(event).below);
    delete &event_of(event);
    return status;
  }
  static int event_record(void* self, void* event, std::int64_t stream) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.event_record(below.self, event_of(event).below, stream);
    return on(self, event_of(event).device,
              [&](Device& device) { return device.event_record(event_of(event), stream); });
  }
  static int event_query(void* self, void* event) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.event_query(below.self, event_of(event).below);
    return on(self, event_of(event).device,
              [&](Device& device) { return device.event_query(event_of(event)); });
  }
  static int event_synchronize(void* self, void* event) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) return below.event_synchronize(below.self, event_of(event).below);
    return on(self, event_of(event).device,
              [&](Device& device) { return device.event_synchronize(event_of(event)); });
  }
  static int event_elapsed(void* self, void* start, void* end, double* milliseconds) {
    const PipellmDriver& below = state(self).below();
    return below.event_elapsed(below.self, event_of(start).below, event_of(end).below, milliseconds);
  }
  static int stream_wait_event(void* self, std::int32_t number, std::int64_t stream, void* event) {
    State& layer = state(self);
    const PipellmDriver& below = layer.below();
    if (layer.forked()) {
      return below.stream_wait_event(below.self, number, stream, event_of(event).below);
    }
    return on(self, number,
              [&](Device& device) { return device.stream_wait_event(stream, event_of(event)); });
  }

  static int copy_on_device(void* self, std::int32_t device, std::int64_t stream,
                            const PipellmDeviceCopy* copies, std::uint64_t count) {
    return put(self, device, stream, [=](const PipellmDriver& below) {
      return below.copy_on_device(below.self, device, stream, copies, count);
    });
  }
  static int fill(void* self, std::int32_t device, std::int64_t stream, void* destination,
                  std::int32_t byte, std::uint64_t nbytes) {
    return put(self, device, stream, [=](const PipellmDriver& below) {
      return below.fill(below.self, device, stream, destination, byte, nbytes);
    });
  }
  static int stream_write_value(void* self, std::int32_t device, std::int64_t stream, void* word,
                                std::uint32_t value) {
    return put(self, device, stream, [=](const PipellmDriver& below) {
      return below.stream_write_value(below.self, device, stream, word, value);
    });
  }
  static int stream_wait_value(void* self, std::int32_t device, std::int64_t stream,
                               const void* word, std::uint32_t value) {
    return put(self, device, stream, [=](const PipellmDriver& below) {
      return below.stream_wait_value(below.self, device, stream, word, value);
    });
  }

  static PipellmDriver table(State& layer) {
    PipellmDriver table = layer.below();
    table.self = &layer;
    table.last_error = pipellm::last_error;
    table.device_count = device_count;
    table.in_bad_fork = in_bad_fork;
    table.confidential = confidential;
    table.malloc = allocate;
    table.free = release;
    table.host_alloc = host_alloc;
    table.host_free = host_free;
    table.host_register = host_register;
    table.host_unregister = host_unregister;
    table.is_pinned = is_pinned;
    table.device_of = device_of;
    table.memory_info = memory_info;
    table.copy = copy;
    table.sync = sync;
    table.launch = launch;
    table.busy = busy;
    table.operated = layer.below().operated == nullptr ? nullptr : operated;
    table.stream_create = stream_create;
    table.stream_query = stream_query;
    table.event_create = event_create;
    table.event_destroy = event_destroy;
    table.event_record = event_record;
    table.event_query = event_query;
    table.event_synchronize = event_synchronize;
    table.event_elapsed = event_elapsed;
    table.stream_wait_event = stream_wait_event;
    table.copy_on_device = copy_on_device;
    table.fill = fill;
    table.stream_write_value = stream_write_value;
    table.stream_wait_value = stream_wait_value;
    return table;
  }
};

PrefetchDriver::PrefetchDriver(const PipellmDriver& below, const Options& options)
    : state_(std::make_unique<State>(below, options)) {
  state_->table = Entries::table(*state_);
}

PrefetchDriver::~PrefetchDriver() = default;

const PipellmDriver* PrefetchDriver::api() const { return &state_->table; }

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
