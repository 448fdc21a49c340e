// The layer of the paper's pipeline: a driver's table over the emulated driver's, with a pipeline over
// each device's open channel.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "emulator/driver.h"
#include "link/layer.h"
#include "memory/declarations.h"
#include "pipelined/pipeline.h"

namespace pipellm {

// Thread-safe. Pipelines are made when their devices are first used through this table; in a child of a
// process that had used them they are forgotten.
class Pipelined final : public Layer {
 public:
  using MakeRuntime = std::function<std::unique_ptr<Runtime>(int device, Pipeline&)>;

  // What is passed by reference outlives this. The driver is confidential, and nobody else uses it.
  Pipelined(Driver& driver, const Declarations& declarations, const Pipeline::Options& options,
            MakeRuntime make_runtime);
  ~Pipelined() override;

  // Throws DriverError as Driver::context does.
  Pipeline& pipeline(int device);
  Pipeline& pipeline(int device, Stream stream);
  Pipeline* pipeline_if_used(int device);  // nullptr: nobody has used the device

  Driver& driver() { return driver_; }

  void stop_reading(const void* start, std::uint64_t nbytes) override;
  void freeze() override;
  void thaw() override;
  bool idle() override;
  void stop_threads() override;

 private:
  template <typename Do>
  void for_each(Do act);

  Driver& driver_;
  const Declarations& declarations_;
  const Pipeline::Options options_;
  const MakeRuntime make_runtime_;
  std::mutex mutex_;  // held while a pipeline is made
  std::vector<std::atomic<Pipeline*>> pipelines_;  // owned
};

// Puts the layer's entries into its table (pipelined_api.cpp).
namespace pipelining {
void put_entries(PipellmDriver& api);
}

}  // namespace pipellm
