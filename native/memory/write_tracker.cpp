#include "memory/write_tracker.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "memory/spare_memory.h"

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
constexpr std::uint64_t kPageIsFile = 4;
constexpr std::uint64_t kPageIsPresent = 8;
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
constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE (mman.h: 5.14)

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

// Its end is 0 for a hole, and where the kernel does not know the question (before 6.11).
MapQuery mapping_at(int maps, std::uintptr_t address) {
  MapQuery query{};
  query.size = sizeof query;
  query.address = address;
  return ioctl(maps, kProcmapQuery, &query) == 0 ? query : MapQuery{};
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
  const Memory memory = memory_at(pages.start, pages.end);
  if (memory == Memory::kUnwatchable) return nullptr;
  const bool of_file = memory == Memory::kPrivateFile;
  if (of_file && !make_own(pages.start, pages.end)) return nullptr;
  std::unique_ptr<Watch> made(new Watch(*this, pages.start, pages.end, of_file));
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
  // An own page that was dropped shows the file's again, and one that is not there may be either.
  return watch.of_file_ ? every_page(watch.start_, watch.end_, kPageIsWpAllowed | kPageIsPresent,
                                     kPageIsWritten | kPageIsFile)
                        : every_page(watch.start_, watch.end_, kPageIsWpAllowed, kPageIsWritten);
}

// Whether every page is all of `is` and none of `is_not`. To ask which ones are not would find none in
// memory that is not even mapped.
bool WriteTracker::every_page(std::uintptr_t start, std::uintptr_t end, std::uint64_t is,
                              std::uint64_t is_not) const {
  std::array<PageRegion, 16> regions;
  while (start < end) {
    ScanArguments scan = scan_of(start, end, regions);
    scan.category_inverted = is_not;
    scan.category_mask = is | is_not;
    scan.return_mask = is;
    const int found = ioctl(pagemap_, kPagemapScan, &scan);
    if (found <= 0) return false;
    for (std::size_t i = 0; i < static_cast<std::size_t>(found); ++i) {
      if (regions[i].start != start) return false;
      start = regions[i].end;
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
// what other watches would have learned from those pages they must learn now. Where it fails half way
// they count as written.
bool WriteTracker::protect(std::uintptr_t start, std::uintptr_t end) {
  std::array<PageRegion, 16> regions;
  std::uintptr_t at = start;
  while (at < end) {
    ScanArguments scan = scan_of(at, end, regions);
    scan.flags = kScanProtectMatching | kScanCheckRegistered;
    scan.category_mask = kPageIsWritten;
    scan.return_mask = kPageIsWritten;
    const int found = ioctl(pagemap_, kPagemapScan, &scan);
    if (found < 0) {
      // It may have protected some pages already, and does not say which ones had been written.
      mark_written(at, end);
      return false;
    }
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

// What all of this range is; a mixture counts as what is hardest to watch.
WriteTracker::Memory WriteTracker::memory_at(std::uintptr_t start, std::uintptr_t end) const {
  Memory memory = Memory::kAnonymous;
  while (start < end) {
    const MapQuery mapping = mapping_at(maps_, start);
    if (mapping.end == 0 || (mapping.vma_flags & kVmaShared) != 0) return Memory::kUnwatchable;
    if (mapping.inode != 0) memory = Memory::kPrivateFile;
    start = mapping.end;
  }
  return memory;
}

// Only those that are not: it is a write, and would be noticed by the watches of others.
bool WriteTracker::make_own(std::uintptr_t start, std::uintptr_t end) const {
  std::array<PageRegion, 1> own;
  while (start < end) {
    ScanArguments scan = scan_of(start, end, own);
    scan.category_inverted = kPageIsFile;
    scan.category_mask = kPageIsPresent | kPageIsFile;
    scan.return_mask = kPageIsPresent;
    const int found = ioctl(pagemap_, kPagemapScan, &scan);
    if (found < 0) return false;
    if (found == 0) own[0].start = own[0].end = end;
    if (start < own[0].start &&
        !(memory_is_plentiful() &&
          madvise(reinterpret_cast<void*>(start), own[0].start - start, kPopulateWrite) == 0)) {
      return false;
    }
    start = own[0].end;
  }
  return true;
}

// Whole mappings: to register parts would split them.
bool WriteTracker::register_mappings(std::uintptr_t start, std::uintptr_t end) {
  while (start < end) {
    const MapQuery mapping = mapping_at(maps_, start);
    if (mapping.end == 0) return false;
    uffdio_register registration{};
    registration.range = {mapping.start, mapping.end - mapping.start};
    registration.mode = UFFDIO_REGISTER_MODE_WP;
    if (ioctl(userfault_, UFFDIO_REGISTER, &registration) != 0) return false;
    start = mapping.end;
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
