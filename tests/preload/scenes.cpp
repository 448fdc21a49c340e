// preload_scenes SCENE; without one, their names.
//
// Prints how often the calling thread waited for work that it held up itself: never, if its copies
// are left to others.
#include "scenes.h"

// By name, so that the program may also be a module that somebody opens.
extern "C" __attribute__((visibility("default"))) int run_scene(const char* name) {
  const auto scene = scenes().find(name);
  REQUIRE(scene != scenes().end());
  scene->second();
  std::printf("stalls: %d\n", stub_stalls());
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 2) return run_scene(argv[1]);
  for (const auto& [name, scene] : scenes()) {
    (void)scene;
    std::printf("%s\n", name.c_str());
  }
  return 0;
}
