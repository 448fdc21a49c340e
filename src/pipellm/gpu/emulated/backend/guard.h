// The device guard: PyTorch's generic way to devices, streams and events, mapped to the driver.
#pragma once

namespace pipellm {

void register_guard();

}  // namespace pipellm
