#include "write_tracker.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace pipellm {

namespace {

// From the kernel's user-space interface; distributions' headers are older than the kernels they run
// on (userfaultfd.h: 6.7, fs.h: 6.7 and 6.11).
constexpr std::uint64_t kFeatureWpUnpopulated = std::uint64_t{1} << 13;
constexpr std::uint64_t kFeatureWpAsync = std::uint64_t{1} << 15;
constexpr int kUserModeOnly = 1;

struct PageRegion {
  std::uint64_t start, end, categories;
};
struct ScanArguments {
  std::uint64_t size, flags, start, end, walk_end, regions, regions_length, max_pages;
  std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr std::uint64_t kPageIsWpAllowed = 1;
constexpr std::uint64_t kPageIsWritten = 2;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);

struct MapQuery {
  std::uint64_t size, flags, address, start, end, vma_flags, page_size, offset, inode;
  std::uint32_t device_major, device_minor, name_size, build_id_size;
  std::uint64_t name_address, build_id_address;
};
constexpr std::uint64_t kVmaShared = 8;
constexpr unsigned long kProcmapQuery = _IOWR('f', 17, MapQuery);

std::uintptr_t page_size() {
  static const auto size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
}

struct Pages {
  Pages(const void* memory, std::size_t nbytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    start = address / page_size() * page_size();
    end = (address + nbytes + page_size() - 1) / page_size() * page_size();
  }
  std::uintptr_t start, end;
};

void close_if_open(int& descriptor) {
  if (descriptor >= 0) close(descriptor);
  descriptor = -1;
}

}  // namespace

WriteTracker::WriteTracker() {
  userfault_ =
      static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly));
  pagemap_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  maps_ = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatureWpAsync | kFeatureWpUnpopulated;
  works_ = userfault_ >= 0 && pagemap_ >= 0 && maps_ >= 0 &&
           ioctl(userfault_, UFFDIO_API, &api) == 0 && protects_a_page();
}

WriteTracker::~WriteTracker() {
  close_if_open(userfault_);
  close_if_open(pagemap_);
  close_if_open(maps_);
}

bool WriteTracker::protects_a_page() {
  void* page = mmap(nullptr, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  works_ = true;  // for the trial
  bool ok = arm(page, page_size()) && clean(page, page_size());
  *static_cast<volatile char*>(page) = 1;
  ok = ok && !clean(page, page_size()) && arm(page, page_size()) && clean(page, page_size());
  munmap(page, page_size());
  return ok && !clean(page, page_size());
}

bool WriteTracker::arm(const void* start, std::size_t nbytes) {
  const Pages pages(start, nbytes);
  if (!works_ || nbytes == 0 || !only_private_memory(pages.start, pages.end)) return false;
  uffdio_register registration{};
  registration.range = {pages.start, pages.end - pages.start};
  registration.mode = UFFDIO_REGISTER_MODE_WP;
  if (ioctl(userfault_, UFFDIO_REGISTER, &registration) != 0) return false;
  uffdio_writeprotect protection{};
  protection.range = registration.range;
  protection.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  return ioctl(userfault_, UFFDIO_WRITEPROTECT, &protection) == 0;
}

bool WriteTracker::clean(const void* start, std::size_t nbytes) const {
  const Pages pages(start, nbytes);
  if (!works_) return false;
  // Asks for the pages that are protected and not written. They must be all: a plain scan for
  // written pages would find none in memory that is not even mapped.
  std::array<PageRegion, 16> regions;
  std::uintptr_t proven = pages.start;
  while (proven < pages.end) {
    ScanArguments scan{};
    scan.size = sizeof scan;
    scan.start = proven;
    scan.end = pages.end;
    scan.regions = reinterpret_cast<std::uintptr_t>(regions.data());
    scan.regions_length = regions.size();
    scan.category_inverted = kPageIsWritten;
    scan.category_mask = kPageIsWpAllowed | kPageIsWritten;
    scan.return_mask = kPageIsWpAllowed;
    const int found = ioctl(pagemap_, kPagemapScan, &scan);
    if (found <= 0) return false;
    for (std::size_t i = 0; i < static_cast<std::size_t>(found); ++i) {
      if (regions[i].start != proven) return false;
      proven = regions[i].end;
    }
  }
  return true;
}

bool WriteTracker::only_private_memory(std::uintptr_t start, std::uintptr_t end) const {
  while (start < end) {
    MapQuery query{};
    query.size = sizeof query;
    query.address = start;
    // Fails for a hole, and where the kernel does not know the question (before 6.11): refused.
    if (ioctl(maps_, kProcmapQuery, &query) != 0) return false;
    if ((query.vma_flags & kVmaShared) != 0 || query.inode != 0) return false;
    start = query.end;
  }
  return true;
}

void WriteTracker::after_fork_in_child() noexcept {
  works_ = false;
  close_if_open(userfault_);
  close_if_open(pagemap_);
  close_if_open(maps_);
}

}  // namespace pipellm
