// A driver as Python opens it: the emulated GPUs, and the layers that were put over their table.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "emulator/driver.h"
#include "link/counted_copies.h"
#include "link/driver_api.h"
#include "link/layer.h"
#include "memory/declarations.h"
#include "pipelined/pipelined.h"
#include "prefetch/prefetch_driver.h"
#include "recorder/recorder.h"

namespace pipellm {

// Layers are put on top of what is there, each at most once, before anybody has the table:
// std::logic_error else.
class DriverStack {
 public:
  // `counters` outlives this object.
  DriverStack(int devices, const DeviceOptions& options, std::shared_ptr<Clock> clock,
              std::int64_t* counters);

  Driver& emulated() { return emulated_; }
  Pipelined* pipelined() { return pipelined_.get(); }  // nullptr: nothing is sealed ahead
  prefetch::PrefetchDriver* prefetching() { return prefetching_.get(); }  // nullptr: nothing is prefetched
  // From the uppermost down.
  const std::vector<Layer*>& layers() const { return layers_; }
  // The uppermost table; the program's.
  const PipellmDriver& api();

  void pipeline(const Pipeline::Options& options, Pipelined::MakeRuntime make_runtime);
  void prefetch(const prefetch::Options& options,
                prefetch::PrefetchDriver::MakePlanner make_planner);
  // Keeps all that is asked from now on in a file in `directory`. Throws std::runtime_error if there is
  // no room for it.
  void record(const std::string& directory);

  // Host memory whose bytes stay as they are, by its owner's word.
  AddressRanges& immutable() { return declarations_.immutable; }
  // From the return of this on nobody reads this memory before a copy of it is asked for.
  void never_ahead(const void* start, std::uint64_t nbytes);
  bool allow_ahead(const void* start, std::uint64_t nbytes);  // false: it was never forbidden

  // Before the process ends: no thread of ours runs while libraries take themselves apart.
  void stop_threads();

 private:
  const PipellmDriver& top() const;
  void put(Layer& layer);
  void require_nobody_has_it() const;
  void stop_reading(const void* start, std::uint64_t nbytes);

  Driver emulated_;
  Declarations declarations_;
  std::int64_t* const counters_;
  std::unique_ptr<Pipelined> pipelined_;
  std::unique_ptr<prefetch::PrefetchDriver> prefetching_;
  std::unique_ptr<CountedCopies> counted_;
  std::unique_ptr<Recorder> recorder_;
  std::vector<Layer*> layers_;
  bool handed_out_ = false;  // the table
};

}  // namespace pipellm
