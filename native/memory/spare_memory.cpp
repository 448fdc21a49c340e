#include "memory/spare_memory.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <optional>
#include <system_error>

namespace pipellm {

namespace {

constexpr std::uint64_t kShare = 8;

// The first number in the first line that begins with `key`.
std::optional<std::uint64_t> number_in(const std::string& path, const std::string& key = "") {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const auto digits = line.find_first_of("0123456789", key.size());
    std::uint64_t number = 0;
    if (digits == std::string::npos ||
        std::from_chars(&line[digits], line.data() + line.size(), number).ec != std::errc()) {
      return std::nullopt;
    }
    return number;
  }
  return std::nullopt;
}

// What a version of control groups calls things.
struct Names {
  const char *mount, *limit, *usage, *cached;
};
constexpr Names kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                             "memory.usage_in_bytes", "total_inactive_file"};
constexpr Names kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};

// A group without a limit, or one that cannot be seen from inside a container, forbids nothing.
bool has_room(const std::string& group, const Names& names) {
  const auto limit = number_in(group + "/" + names.limit);
  const auto usage = number_in(group + "/" + names.usage);
  if (!limit || !usage) return true;
  const auto cached = number_in(group + "/memory.stat", names.cached).value_or(0);
  return *limit - *limit / kShare >= *usage - std::min(cached, *usage);
}

bool groups_have_room(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const auto controllers = line.find(':');
    const auto path = line.find(':', controllers + 1);
    if (path == std::string::npos || line[path + 1] != '/') continue;
    const std::string names = line.substr(controllers + 1, path - controllers - 1);
    if (!names.empty() && names != "memory") continue;
    const Names& version = names.empty() ? kVersion2 : kVersion1;
    for (std::string group = line.substr(path + 1);; group.resize(group.rfind('/'))) {
      if (group == "/") group.clear();
      if (!has_room(root + version.mount + group, version)) return false;
      if (group.empty()) break;
    }
  }
  return true;
}

}  // namespace

bool memory_is_plentiful(const std::string& root) {
  const auto total = number_in(root + "/proc/meminfo", "MemTotal:");
  const auto available = number_in(root + "/proc/meminfo", "MemAvailable:");
  return total && available && *available >= *total / kShare && groups_have_room(root);
}

}  // namespace pipellm
