// Noticing that memory was written since it was sealed.
//
// userfaultfd in its asynchronous write-protect mode (Linux 6.7): the first write to a protected page
// is let through by the kernel, which only notes it; a PAGEMAP_SCAN tells afterwards. Unlike mprotect
// and a signal handler this also notices what system calls write, and breaks no program.
//
// The question is asked strictly: memory is unchanged only if every one of its pages is still
// protected and unwritten. Memory that was unmapped, remapped or given back to the kernel fails it.
//
// What cannot be noticed is refused beforehand: shared memory may be written through another mapping.
//
// A private mapping of a file (weights, as safetensors maps them) shows the file's own pages until the
// process writes to them, and those others may write. So its pages are made the process's own before
// they are watched, as a write would make them; mmap(2) leaves open whether a private mapping shows
// what becomes of its file. That takes memory, and is refused where memory is short.
//
// Nothing here closes the race with a thread that writes while the memory is sealed: like any source
// of a copy, a buffer must be quiet from the request on.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_set>

#include "base/fork.h"

namespace pipellm {

// Internally locked.
class WriteTracker final : private ForkAware {
 public:
  // Memory that is watched for as long as this lives. Must not outlive its tracker.
  class Watch {
   public:
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    friend class WriteTracker;
    Watch(WriteTracker& tracker, std::uintptr_t start, std::uintptr_t end, bool of_file)
        : tracker_(tracker), start_(start), end_(end), of_file_(of_file) {}

    WriteTracker& tracker_;
    const std::uintptr_t start_, end_;  // whole pages
    const bool of_file_;                // own pages, where the file's would come back
    bool written_ = false;              // found out when somebody else protected a page again
  };

  WriteTracker();
  ~WriteTracker() override;

  // Whether this kernel does what it says: found out by trying, at construction.
  bool works() const { return works_; }

  // From now on writes to the pages of this range are noticed. nullptr if they could not be. Pages of
  // a privately mapped file are read and copied first.
  std::unique_ptr<Watch> watch(const void* start, std::size_t nbytes);

  // Whether nothing has touched the watch's pages since it began. Also false in doubt.
  bool unchanged(const Watch& watch);

  // Tests only: from now on nothing ever was written. Shows that a test of the tracker can fail.
  void go_blind() { blind_ = true; }

  // Whoever is about to write all of it may lift the protection at once, which is cheaper than a
  // fault for each page. Watches of these pages count as written.
  void expect_writes(const void* start, std::size_t nbytes);

 private:
  enum class Memory { kAnonymous, kPrivateFile, kUnwatchable };

  bool passes_trial();
  Memory memory_at(std::uintptr_t start, std::uintptr_t end) const;
  bool make_own(std::uintptr_t start, std::uintptr_t end) const;
  bool every_page(std::uintptr_t start, std::uintptr_t end, std::uint64_t is,
                  std::uint64_t is_not) const;
  bool register_mappings(std::uintptr_t start, std::uintptr_t end);
  bool protect(std::uintptr_t start, std::uintptr_t end);
  void mark_written(std::uintptr_t start, std::uintptr_t end);
  void after_fork_in_child() noexcept override;

  // Descriptors of this process's own memory map; a child's memory is another.
  int userfault_ = -1;
  int pagemap_ = -1;
  int maps_ = -1;
  bool works_ = false;
  std::atomic<bool> blind_{false};

  std::mutex mutex_;  // guards what pages are protected, and the watches
  std::unordered_set<Watch*> watches_;
};

}  // namespace pipellm
