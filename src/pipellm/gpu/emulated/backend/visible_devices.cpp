#include "visible_devices.h"

#include <cstdlib>
#include <cstring>
#include <set>

namespace pipellm {

int count_visible(const char* variable, int devices) {
  if (variable == nullptr) return devices;
  int visible = 0;
  bool all_known = true;
  std::set<long> named;
  while (true) {
    char* end = nullptr;
    const long number = std::strtol(variable, &end, 10);
    if (end == variable || number < 0) return visible;
    if (!named.insert(number).second) return 0;
    all_known = all_known && number < devices;
    if (all_known) ++visible;
    const char* comma = std::strchr(end, ',');
    if (comma == nullptr) return visible;
    variable = comma + 1;
  }
}

}  // namespace pipellm
