// A program for the sanitizers: everything that a driver's clients may do, and what may happen to them.
//   pipellm_stress [SCENE...]    all scenes, unless some are named
// Exit status 0 if every byte was right and nobody touched what was gone.
#include <cstdio>
#include <string_view>

#include "testing/stress.h"

namespace {

struct Scene {
  const char* name;
  void (*play)();
};

constexpr Scene kScenes[] = {
    {"clients", pipellm::stress::clients},   {"lost", pipellm::stress::lost},
    {"failing", pipellm::stress::failing_runtime}, {"signals", pipellm::stress::signals},
    {"forks", pipellm::stress::forks},       {"shutdown", pipellm::stress::shutdown},
};

bool named(const Scene& scene, int count, char** arguments) {
  for (int i = 1; i < count; ++i) {
    if (std::string_view(arguments[i]) == scene.name) return true;
  }
  return count == 1;
}

}  // namespace

int main(int count, char** arguments) {
  for (const Scene& scene : kScenes) {
    if (!named(scene, count, arguments)) continue;
    std::fprintf(stderr, "scene: %s\n", scene.name);
    scene.play();
    std::printf("%s: ok\n", scene.name);
    std::fflush(stdout);
  }
}
