#include "keystream_ahead.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bitset>
#include <exception>
#include <optional>
#include <utility>

#include "keystream.h"
#include "pool.h"
#include "secret.h"
#include "signals_blocked.h"

namespace pipellm::provider {

namespace {

// 8 MiB are as much as a last-level cache holds beside what the program keeps there.
constexpr std::size_t kMessages = 8;

// New ones are asked for when so many are missing: to wake a thread costs the caller some time.
constexpr std::size_t kBatch = 4;

// The one thread that makes keystream; never destroyed: at exit, it just sleeps.
class Maker {
 public:
  static Maker& instance() {
    static auto* const maker = new Maker;
    return *maker;
  }

  void submit(Pool::Job job) {
    const SignalsBlocked blocked;  // for the thread, which starts with the first job
    pool_.submit([work = std::move(job)] {
      // Whatever the program does goes first. A thread may always ask for less.
      constexpr sched_param kNone{};
      (void)sched_setscheduler(0, SCHED_IDLE, &kNone);
      work();
    });
  }

 private:
  Pool pool_{1};
};

}  // namespace

// Turned by its owner, but for the steps marked *, which are its maker's.
enum class State : int {
  kEmpty,  // as a child finds it
  kAsked,
  kMaking,    // *
  kUnwanted,  // was kMaking; its maker wipes it and turns it to kEmpty *
  kReady,     // *
  kStale,     // used or passed: as good as empty, but not wiped
};

struct KeystreamAhead::Slot {
  bool is(State which) const { return state->load(std::memory_order_acquire) == which; }
  bool turn(State from, State to) const {
    return state->compare_exchange_strong(from, to, std::memory_order_acq_rel);
  }

  // These belong to the owner, but from kAsked until the maker is done.
  std::atomic<State>* state;  // in secret pages
  Iv iv{};
  std::size_t nbytes = 0, room = 0;
  std::optional<SecretPages> keystream{};
};

struct KeystreamAhead::Shared {
  struct Secrets {
    bool key_is_here = true;  // not in a child
    alignas(kKeyDataAlignment) gcm_key_data key;
    std::array<std::atomic<State>, kMessages> states;
  };

  Shared(const IpsecMb& of, const gcm_key_data& key) : library(of) {
    secrets->key = key;
    for (std::size_t i = 0; i < kMessages; ++i) slots[i].state = &secrets->states[i];
  }

  void make_all() {
    for (Slot& slot : slots) {
      if (!slot.turn(State::kAsked, State::kMaking)) continue;
      make(slot);
      if (slot.turn(State::kMaking, State::kReady)) continue;
      wipe(slot.keystream->data(), slot.nbytes);
      slot.state->store(State::kEmpty, std::memory_order_release);
    }
  }

  void make(const Slot& slot) const {
    auto* const keystream = static_cast<std::uint8_t*>(slot.keystream->data());
    gcm_context_data state;
    library.init(&secrets->key, &state, slot.iv.data(), slot.iv.size(), nullptr, 0);
    // Piece by piece, to see whether it is still wanted.
    for (std::size_t from = 0; from < slot.nbytes && slot.is(State::kMaking);) {
      const std::size_t piece = std::min(kMostKeystreamAtOnce, slot.nbytes - from);
      make_keystream(library, secrets->key, state, keystream + from, piece);
      from += piece;
    }
    wipe(&state, sizeof state);
  }

  const IpsecMb& library;
  const Secret<Secrets> secrets;
  std::array<Slot, kMessages> slots;
};

void KeystreamAhead::prepare() { Maker::instance(); }

KeystreamAhead::KeystreamAhead(const IpsecMb& library, const gcm_key_data& key)
    : shared_(std::make_shared<Shared>(library, key)) {}

KeystreamAhead::~KeystreamAhead() {
  for (Slot& slot : shared_->slots) {
    drop(slot);
    if (!slot.is(State::kUnwanted)) slot.keystream.reset();
  }
}

const std::uint8_t* KeystreamAhead::take(const Iv& iv, std::size_t nbytes) {
  for (Slot& slot : shared_->slots) {
    if (!slot.is(State::kReady) || slot.iv != iv) continue;
    drop(slot);
    if (nbytes <= slot.nbytes) return static_cast<const std::uint8_t*>(slot.keystream->data());
  }
  return nullptr;
}

void KeystreamAhead::expect(const IvSchedule& schedule, std::size_t nbytes) noexcept try {
  if (!shared_->secrets->key_is_here) return;
  nbytes = std::min(nbytes, kMaxBytes);
  std::array<Iv, kMessages> wanted;
  for (std::uint32_t i = 0; i < kMessages; ++i) wanted[i] = schedule.after(i + 1);
  std::bitset<kMessages> missing;
  missing.set();
  for (Slot& slot : shared_->slots) {
    const auto place = std::find(wanted.begin(), wanted.end(), slot.iv) - wanted.begin();
    if (place == kMessages || slot.nbytes < nbytes) {
      drop(slot);
    } else if (!slot.is(State::kEmpty) && !slot.is(State::kStale)) {
      missing.reset(static_cast<std::size_t>(place));
    }
  }
  if (missing.count() < kBatch) return;

  std::size_t next = 0;
  for (Slot& slot : shared_->slots) {
    if (!slot.is(State::kEmpty) && !slot.is(State::kStale)) continue;
    while (next < kMessages && !missing[next]) ++next;
    if (next == kMessages) break;
    if (slot.room < nbytes) {
      slot.room = 0;  // should there be no memory
      slot.keystream.emplace(nbytes);
      slot.room = nbytes;
    }
    slot.iv = wanted[next++];
    slot.nbytes = nbytes;
    slot.state->store(State::kAsked, std::memory_order_release);
  }
  Maker::instance().submit([shared = shared_] { shared->make_all(); });
} catch (const std::exception&) {
  // No memory or no thread to be had: the messages are dealt with as they come.
}

void KeystreamAhead::drop(Slot& slot) noexcept {
  // In the order in which its maker turns it.
  if (slot.turn(State::kAsked, State::kStale)) return;
  if (slot.turn(State::kMaking, State::kUnwanted)) return;
  slot.turn(State::kReady, State::kStale);
}

}  // namespace pipellm::provider
