# Shared objects that are loaded into programs we know nothing of, and stay there.
#
#     add_foreign_module(NAME SOURCE...)
#
# Its exports are what exports.map, beside the caller's CMakeLists.txt, names.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_UNITY_BUILD ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_package(Threads REQUIRED)
set(PIPELLM_SANITIZE "" CACHE STRING "Sanitizers to build with")

# For them and for what tests them.
if(NOT TARGET foreign_flags)
  add_library(foreign_flags INTERFACE)
  target_include_directories(foreign_flags INTERFACE ${CMAKE_CURRENT_LIST_DIR})
  target_compile_options(foreign_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
  target_link_libraries(foreign_flags INTERFACE Threads::Threads ${CMAKE_DL_LIBS})
  if(PIPELLM_SANITIZE)
    target_link_options(foreign_flags INTERFACE -fsanitize=${PIPELLM_SANITIZE})
  endif()
endif()

include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_LINK_OPTIONS -static-libstdc++ -static-libgcc)
check_cxx_source_compiles("#include <string>\nint main() { return std::string().empty(); }"
  PIPELLM_STATIC_RUNTIME)
unset(CMAKE_REQUIRED_LINK_OPTIONS)

# Never unloaded: its threads outlive who loaded it. The C++ runtime goes in, because the program may
# bring an older one.
function(add_foreign_module name)
  add_library(${name} MODULE ${ARGN})
  set(exports ${CMAKE_CURRENT_SOURCE_DIR}/exports.map)
  set_target_properties(${name} PROPERTIES PREFIX "" LINK_DEPENDS ${exports})
  target_link_libraries(${name} PRIVATE foreign_flags)
  target_link_options(${name} PRIVATE -Wl,-z,nodelete -Wl,--version-script=${exports})
  if(NOT PIPELLM_SANITIZE)
    target_link_options(${name} PRIVATE -Wl,-z,defs)  # a symbol that is missing shows here
    if(PIPELLM_STATIC_RUNTIME)
      target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc)
    endif()
  endif()
endfunction()
