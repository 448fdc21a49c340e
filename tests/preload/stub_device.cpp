#include "stub_device.h"

#include <algorithm>
#include <thread>
#include <utility>

thread_local Error last_error = 0;
thread_local bool may_release = false;

namespace {

bool ready(const Op& op) {
  if (op.held && gpu().holding) return false;
  if (op.to_host && gpu().holding_copies) return false;
  return std::all_of(op.after.begin(), op.after.end(), [](const auto& a) { return a->done; });
}

void device_main() {
  Gpu& g = gpu();
  std::unique_lock lock(g.mutex);
  for (;;) {
    std::vector<std::size_t> candidates;
    for (std::size_t i = 0; i < g.waiting.size(); ++i) {
      if (ready(*g.waiting[i])) candidates.push_back(i);
    }
    if (candidates.empty()) {
      g.changed.wait(lock);
      continue;
    }
    const auto at = static_cast<std::ptrdiff_t>(candidates[g.random() % candidates.size()]);
    const OpPointer op = g.waiting[static_cast<std::size_t>(at)];
    g.waiting.erase(g.waiting.begin() + at);
    if (op->work) op->work();
    op->done = true;
    op->after.clear();
    g.changed.notify_all();
    lock.unlock();
    if (op->to_host || g.random() % 4 == 0) std::this_thread::yield();
    lock.lock();
  }
}

bool behind_held(const Op& op) {
  if (op.done) return false;
  return (op.held && gpu().holding) || (op.to_host && gpu().holding_copies) ||
         std::any_of(op.after.begin(), op.after.end(), [](const auto& a) { return behind_held(*a); });
}

}  // namespace

Gpu& gpu() {
  static Gpu* const instance = [] {
    auto* made = new Gpu;
    made->streams.push_back(&made->legacy);
    return made;
  }();
  static const bool started = (std::thread(device_main).detach(), true);
  (void)started;
  return *instance;
}

Error fail(Error error) {
  if (error != 0) last_error = error;
  return error;
}

bool usable() { return gpu().owner == getpid(); }

Stream resolve(Stream stream, bool own_default) {
  thread_local CUstream_st per_thread;
  const auto handle = reinterpret_cast<std::uintptr_t>(stream);
  if (handle == 2 || (handle == 0 && own_default)) {
    auto& streams = gpu().streams;
    if (std::find(streams.begin(), streams.end(), &per_thread) == streams.end()) {
      streams.push_back(&per_thread);
    }
    return &per_thread;
  }
  return handle <= 1 ? &gpu().legacy : stream;
}

std::vector<OpPointer> before(Stream stream) {
  Gpu& g = gpu();
  std::vector<OpPointer> ops;
  for (Stream other : g.streams) {
    const bool joined = stream == &g.legacy ? other->blocking
                                            : stream->blocking && other == &g.legacy;
    if ((other == stream || joined) && other->last) ops.push_back(other->last);
  }
  return ops;
}

std::vector<OpPointer> of(Stream stream) {
  if (stream == &gpu().legacy) return before(stream);
  return stream->last ? std::vector{stream->last} : std::vector<OpPointer>();
}

OpPointer submit(Stream stream, std::function<void()> work, Op properties) {
  Gpu& g = gpu();
  auto op = std::make_shared<Op>(std::move(properties));
  op->work = std::move(work);
  op->after = before(stream);
  stream->last = op;
  g.waiting.push_back(op);
  g.changed.notify_all();
  return op;
}

void wait(std::unique_lock<std::mutex>& lock, const OpPointer& op) {
  Gpu& g = gpu();
  if (!op) return;
  if (may_release && behind_held(*op)) {
    ++g.stalls;
    g.holding = g.holding_copies = false;
    g.changed.notify_all();
  }
  g.changed.wait(lock, [&] { return op->done; });
}
