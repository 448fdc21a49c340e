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
constexpr std::uint64_t kScanProtectMatching = 1;
constexpr std::uint64_t kScanCheckRegistered = 2;
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

template <std::size_t N>
ScanArguments scan_of(std::uintptr_t start, std::uintptr_t end, std::array<PageRegion, N>& regions) {
  ScanArguments scan{};
  scan.size = sizeof scan;
  scan.start = start;
  scan.end = end;
  scan.regions = reinterpret_cast<std::uintptr_t>(regions.data());
  scan.regions_length = N;
  return scan;
}

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
           ioctl(userfault_, UFFDIO_API, &api) == 0 && passes_trial();
}

WriteTracker::~WriteTracker() {
  close_if_open(userfault_);
  close_if_open(pagemap_);
  close_if_open(maps_);
}

bool WriteTracker::passes_trial() {
  const std::size_t size = page_size();
  void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  works_ = true;  // for the trial
  bool ok = false;
  if (const auto first = watch(page, size); first != nullptr && unchanged(*first)) {
    *static_cast<volatile char*>(page) = 1;
    const auto second = unchanged(*first) ? nullptr : watch(page, size);
    ok = second != nullptr && unchanged(*second) && !unchanged(*first);
    munmap(page, size);
    return ok && !unchanged(*second);
  }
  munmap(page, size);
  return false;
}

std::unique_ptr<WriteTracker::Watch> WriteTracker::watch(const void* start, std::size_t nbytes) {
  if (!works_ || nbytes == 0) return nullptr;
  const Pages pages(start, nbytes);
  std::unique_ptr<Watch> made(new Watch(*this, pages.start, pages.end));
  const std::lock_guard lock(mutex_);
  // In the common case the pages are registered, and still protected from the last time.
  if (!protect(pages.start, pages.end) &&
      !(register_mappings(pages.start, pages.end) && protect(pages.start, pages.end))) {
    return nullptr;
  }
  watches_.insert(made.get());
  return made;
}

WriteTracker::Watch::~Watch() {
  const std::lock_guard lock(tracker_.mutex_);
  tracker_.watches_.erase(this);
}

bool WriteTracker::unchanged(const Watch& watch) {
  const std::lock_guard lock(mutex_);
  if (blind_) return true;
  if (!works_ || watch.written_) return false;
  // Asks for the pages that are protected and not written. They must be all: a plain scan for
  // written pages would find none in memory that is not even mapped.
  std::array<PageRegion, 16> regions;
  std::uintptr_t proven = watch.start_;
  while (proven < watch.end_) {
    ScanArguments scan = scan_of(proven, watch.end_, regions);
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

void WriteTracker::expect_writes(const void* start, std::size_t nbytes) {
  if (!works_ || nbytes == 0) return;
  const Pages pages(start, nbytes);
  const std::lock_guard lock(mutex_);
  mark_written(pages.start, pages.end);
  uffdio_writeprotect protection{};
  protection.range = {pages.start, pages.end - pages.start};
  (void)ioctl(userfault_, UFFDIO_WRITEPROTECT, &protection);  // fails if it never was protected
}

// Protects the pages that are not protected, in one step with learning which ones had been written:
// what other watches would have learned from those pages they must learn now.
bool WriteTracker::protect(std::uintptr_t start, std::uintptr_t end) {
  std::array<PageRegion, 16> regions;
  std::uintptr_t at = start;
  while (at < end) {
    ScanArguments scan = scan_of(at, end, regions);
    scan.flags = kScanProtectMatching | kScanCheckRegistered;
    scan.category_mask = kPageIsWritten;
    scan.return_mask = kPageIsWritten;
    const int found = ioctl(pagemap_, kPagemapScan, &scan);
    if (found < 0) return false;
    for (std::size_t i = 0; i < static_cast<std::size_t>(found); ++i) {
      mark_written(regions[i].start, regions[i].end);
    }
    at = scan.walk_end;
  }
  return true;
}

void WriteTracker::mark_written(std::uintptr_t start, std::uintptr_t end) {
  for (Watch* watch : watches_) {
    if (watch->start_ < end && start < watch->end_) watch->written_ = true;
  }
}

// Whole mappings: to register parts would split them.
bool WriteTracker::register_mappings(std::uintptr_t start, std::uintptr_t end) {
  while (start < end) {
    MapQuery query{};
    query.size = sizeof query;
    query.address = start;
    // Fails for a hole, and where the kernel does not know the question (before 6.11): refused.
    if (ioctl(maps_, kProcmapQuery, &query) != 0) return false;
    if ((query.vma_flags & kVmaShared) != 0 || query.inode != 0) return false;
    uffdio_register registration{};
    registration.range = {query.start, query.end - query.start};
    registration.mode = UFFDIO_REGISTER_MODE_WP;
    if (ioctl(userfault_, UFFDIO_REGISTER, &registration) != 0) return false;
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
