// What a schedule foresees of IVs that are a counter XOR a mask.
//
//     provider_schedule SEED
//
// Exit status 0, and one line, if it foresees what it must and nothing of what it cannot.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "evp.h"
#include "iv_schedule.h"

namespace {

using pipellm::provider::Iv;
using pipellm::provider::IvSchedule;

std::mt19937 random_bits;

std::uint32_t below(std::uint32_t limit) {
  return std::uniform_int_distribution<std::uint32_t>(0, limit - 1)(random_bits);
}

Iv random_iv() {
  Iv iv;
  for (auto& byte : iv) byte = static_cast<std::uint8_t>(random_bits());
  return iv;
}

// NVIDIA's: the counter's bytes from the lowest on, under a mask.
class Channel {
 public:
  explicit Channel(std::uint32_t before) : number_(before) {}

  Iv at(std::uint32_t number) const {
    Iv iv = mask_;
    for (unsigned byte = 0; byte < 4; ++byte) {
      iv[byte] = static_cast<std::uint8_t>(iv[byte] ^ (number >> (8 * byte)));
    }
    return iv;
  }
  Iv next() { return at(++number_); }
  std::uint32_t number() const { return number_; }
  void skip(std::uint32_t messages) { number_ += messages; }

 private:
  Iv mask_ = random_iv();
  std::uint32_t number_;
};

void from_the_first_message_on_all_are_foreseen() {
  Channel channel(0);
  IvSchedule schedule;
  for (int message = 1; message <= 20'000; ++message) {
    schedule.observe(channel.next());
    require(schedule.known() == (message >= 5), "known too late or too early");
    const std::uint32_t ahead = 1 + below(64);
    require(schedule.after(ahead) == channel.at(channel.number() + ahead), "foreseen wrongly");
  }
}

void from_anywhere_it_errs_once_for_each_bit_of_the_counter() {
  Channel channel(below(UINT32_MAX));
  IvSchedule schedule;
  schedule.observe(channel.next());
  int wrong = 0;
  for (int message = 0; message < 1 << 17; ++message) {
    const Iv foreseen = schedule.after(1), iv = channel.next();
    wrong += foreseen != iv;
    schedule.observe(iv);
  }
  require(wrong <= 18, "errs more than once for each bit");
}

void after_a_gap_it_finds_back() {
  Channel channel(below(1000));
  IvSchedule schedule;
  for (int gap = 0; gap < 20; ++gap) {
    schedule.observe(channel.next());
    int wrong = 0;
    for (int message = 0; message < 1 << 10; ++message) {
      const Iv foreseen = schedule.after(1), iv = channel.next();
      wrong += foreseen != iv;
      schedule.observe(iv);
    }
    require(wrong <= 11, "does not find back");
    channel.skip(1 + below(100'000));
  }
}

void random_ivs_are_never_known() {
  IvSchedule schedule;
  for (int message = 0; message < 100'000; ++message) {
    schedule.observe(random_iv());
    require(!schedule.known(), "knows what is random");
  }
}

}  // namespace

int main(int, char** arguments) {
  const unsigned seed = static_cast<unsigned>(std::strtoul(arguments[1], nullptr, 10));
  for (unsigned round = 0; round < 20; ++round) {
    random_bits.seed(seed * 1000 + round);
    from_the_first_message_on_all_are_foreseen();
    from_anywhere_it_errs_once_for_each_bit_of_the_counter();
    after_a_gap_it_finds_back();
  }
  random_ivs_are_never_known();
  std::puts("schedule: ok");
}
