// A libnvidia-ml.so.1 that says that confidential computing is on, unless STUB_CC=off.
#include <cstdlib>
#include <cstring>

struct State {
  unsigned environment, feature, devtools;
};

extern "C" int nvmlInit_v2() { return 0; }
extern "C" int nvmlShutdown() { return 0; }
extern "C" int nvmlSystemGetConfComputeState(State* state) {
  const char* set = std::getenv("STUB_CC");
  *state = {2, set == nullptr || std::strcmp(set, "off") != 0, 0};
  return 0;
}
