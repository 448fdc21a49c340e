#include "emulator/bounce_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace pipellm {

namespace {

[[noreturn]] void fail_with_errno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

bool open_arrived(Endpoint& endpoint, std::uint32_t number, const BounceSlot& slot,
                  std::size_t nbytes, std::uint8_t* plaintext) {
  const Iv iv = slot.iv;
  const Tag tag = slot.tag;
  return endpoint.number_of(iv) == number &&
         endpoint.open(number, {slot.ciphertext, nbytes}, plaintext, tag);
}

BounceRing::BounceRing(std::size_t slots) : slots_(slots) {
  fd_ = memfd_create("pipellm-bounce", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd_ < 0) fail_with_errno("cannot create the bounce buffer");
  const std::size_t nbytes = slots_ * sizeof(BounceSlot);
  void* mapping = MAP_FAILED;
  // Whoever opens it may change what it holds, but not cut it: that would be a SIGBUS for us.
  if (ftruncate(fd_, static_cast<off_t>(nbytes)) == 0 &&
      fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
    mapping = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  }
  if (mapping == MAP_FAILED) {
    const int error = errno;
    close(fd_);
    errno = error;
    fail_with_errno("cannot map the bounce buffer");
  }
  mapping_ = static_cast<BounceSlot*>(mapping);
}

BounceRing::~BounceRing() {
  munmap(mapping_, slots_ * sizeof(BounceSlot));
  close(fd_);
}

}  // namespace pipellm
