#include "provider/random.h"

#include <sys/random.h>

#include <cerrno>

namespace pipellm::provider {

bool fill_with_random(std::uint8_t* data, std::size_t nbytes) {
  while (nbytes > 0) {
    const ssize_t got = getrandom(data, nbytes, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    data += got;
    nbytes -= static_cast<std::size_t>(got);
  }
  return true;
}

}  // namespace pipellm::provider
