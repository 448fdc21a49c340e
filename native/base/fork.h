// What a forked child must not inherit: threads (they do not exist there) and keys.
//
// Objects that own either derive from ForkAware; `after_fork_in_child` then runs in every child,
// on its only thread, before fork() returns. It must take no lock (another thread of the parent may
// have held it) and must not rely on data that a lock protects.
#pragma once

namespace pipellm {

class ForkAware {
 public:
  ForkAware(const ForkAware&) = delete;
  ForkAware& operator=(const ForkAware&) = delete;

 protected:
  ForkAware();
  virtual ~ForkAware();

 private:
  virtual void after_fork_in_child() noexcept = 0;
  static void run_in_child() noexcept;

  ForkAware* next_ = nullptr;  // a list, because a child may not trust a container half changed
  ForkAware* previous_ = nullptr;
};

}  // namespace pipellm
