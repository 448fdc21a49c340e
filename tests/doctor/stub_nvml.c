// A libnvidia-ml.so.1 for a machine with one H100 whose confidential computing is as CC says:
// "on" (and ready), "busy" (on, not ready), "off".
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned environment, feature, devtools; } State;

static int cc(const char* value) {
  const char* set = getenv("STUB_CC");
  return set != NULL && strcmp(set, value) == 0;
}

int nvmlInitWithFlags(unsigned flags) { return flags == 0 ? 0 : 2; }
int nvmlShutdown(void) { return 0; }
const char* nvmlErrorString(int result) { return result == 0 ? "Success" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned* count) { return *count = 1, 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  static int one;
  *device = &one;
  return index == 0 ? 0 : 2;
}
int nvmlDeviceGetName(void* device, char* name, unsigned room) {
  (void)device;
  return strncpy(name, "NVIDIA H100 NVL", room), 0;
}
int nvmlSystemGetDriverVersion(char* version, unsigned room) {
  return strncpy(version, "999.00", room), 0;
}
int nvmlSystemGetConfComputeState(State* state) {
  *state = (State){2, cc("on") || cc("busy"), 0};
  return 0;
}
int nvmlSystemGetConfComputeGpusReadyState(unsigned* ready) { return *ready = cc("on"), 0; }
