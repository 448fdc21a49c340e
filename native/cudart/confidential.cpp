#include "cudart/confidential.h"

#include <dlfcn.h>

namespace pipellm::cudart {

namespace {

// nvmlConfComputeSystemState_t
struct State {
  unsigned environment, feature, devtools;
};
constexpr unsigned kEnabled = 1;  // NVML_CC_SYSTEM_FEATURE_ENABLED

template <typename... Arguments>
int call(void* library, const char* name, Arguments... arguments) {
  auto* const function = reinterpret_cast<int (*)(Arguments...)>(dlsym(library, name));
  return function == nullptr ? -1 : function(arguments...);
}

}  // namespace

bool confidential_computing_is_on() {
  void* const library = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr || call(library, "nvmlInit_v2") != 0) return false;
  State state{};
  const bool told = call(library, "nvmlSystemGetConfComputeState", &state) == 0;
  call(library, "nvmlShutdown");
  return told && state.feature == kEnabled;
}

}  // namespace pipellm::cudart
