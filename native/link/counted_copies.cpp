#include "link/counted_copies.h"

#include "base/copy_count.h"

namespace pipellm {

CountedCopies::CountedCopies(const PipellmDriver& below, Clock& clock, std::int64_t* counters)
    : Layer(below), clock_(clock), counters_(counters) {
  api_.copy = copy;
}

int CountedCopies::copy(void* self, const PipellmCopy* request) {
  auto& layer = static_cast<CountedCopies&>(*static_cast<Layer*>(self));
  const Direction direction = request->direction == PIPELLM_H2D ? kH2d : kD2h;
  CopyCount count(layer.clock_, layer.counters_);
  const int status = layer.below(&PipellmDriver::copy, request);
  if (status == PIPELLM_OK) count.done(direction, request->nbytes);
  return status;
}

}  // namespace pipellm
