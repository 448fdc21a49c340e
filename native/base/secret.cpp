#include "base/secret.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <unistd.h>

namespace pipellm {

SecretPages::SecretPages(std::size_t nbytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  mapped_ = (nbytes + page - 1) / page * page;
  data_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) throw std::bad_alloc();
  // Best effort: a container's locked-memory limit may be tiny, and that is no reason to refuse.
  (void)mlock2(data_, mapped_, MLOCK_ONFAULT);
  (void)madvise(data_, mapped_, MADV_DONTDUMP);
  if (madvise(data_, mapped_, MADV_WIPEONFORK) != 0) {
    // Without it a child would inherit the key. Linux has had it since 4.14.
    munmap(data_, mapped_);
    throw std::bad_alloc();
  }
}

SecretPages::~SecretPages() {
  wipe(data_, mapped_);
  munmap(data_, mapped_);
}

void wipe(void* data, std::size_t nbytes) { OPENSSL_cleanse(data, nbytes); }

}  // namespace pipellm
