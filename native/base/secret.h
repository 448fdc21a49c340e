// Memory that holds keys.
//
// Pages of their own: kept out of swap and core dumps where the kernel lets us, wiped before they
// are unmapped, and read as zeros in a forked child, which must start a session of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <utility>

namespace pipellm {

class SecretPages {
 public:
  explicit SecretPages(std::size_t nbytes);  // throws std::bad_alloc
  ~SecretPages();
  SecretPages(const SecretPages&) = delete;
  SecretPages& operator=(const SecretPages&) = delete;

  void* data() const { return data_; }

 private:
  void* data_;
  std::size_t mapped_;
};

// One trivially destructible T in secret pages. T may want up to a page of alignment.
template <typename T>
class Secret {
 public:
  Secret() : pages_(sizeof(T)), value_(new (pages_.data()) T{}) {}

  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  static_assert(std::is_trivially_destructible_v<T>);
  SecretPages pages_;
  T* value_;
};

void wipe(void* data, std::size_t nbytes);

}  // namespace pipellm
