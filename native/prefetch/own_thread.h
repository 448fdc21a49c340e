// A thread of ours, which ends before the process does.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace pipellm::prefetch {

// Its owner guards it.
class OwnThread {
 public:
  // The thread itself, as what runs on it sees it.
  class Self {
   public:
    // Runs `call`, which may wait for one of the program's streams, for ever perhaps.
    template <typename Call>
    auto waiting(Call call) {
      const Wait wait(*this);
      return call();
    }

   private:
    friend class OwnThread;
    struct Wait {
      explicit Wait(Self& thread) : self(thread) { self.set_waits(true); }
      ~Wait() { self.set_waits(false); }
      Self& self;
    };
    void set_waits(bool waits);

    std::mutex mutex_;  // guards all below
    std::condition_variable changed_;
    bool ended_ = false, waits_ = false;
  };

  // Unless it runs already. False: the system gives no thread.
  bool start(std::function<void(Self&)> main);
  bool runs() const { return thread_ != nullptr; }
  // Returns when it has ended, which it was told to do. False: it has waited so long for a stream of the
  // program's, and stays behind: what it uses must last.
  bool end(std::chrono::milliseconds patience);
  void forget() { (void)thread_.release(); }  // in a forked child

 private:
  std::unique_ptr<std::thread> thread_;
  std::shared_ptr<Self> self_;
};

// At the end, so long is waited for what streams of the program's have not come to.
inline constexpr std::chrono::milliseconds kPatience{1000};

}  // namespace pipellm::prefetch
