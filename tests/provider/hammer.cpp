// Many threads that use the provider at once, for the sanitizers; with `fork`, and a fork in the
// midst of it (which the sanitizers' own allocators do not survive).
//
//     provider_hammer MODULE [fork]
//
// Exit status 0, and one line, if every message came out as the default provider makes it.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "evp.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
using Tag = std::array<std::uint8_t, 16>;

constexpr int kThreads = 8;
constexpr int kRounds = 60;

struct Sealed {
  Bytes ciphertext;
  Tag tag;
  bool operator==(const Sealed&) const = default;
};

Sealed seal(EVP_CIPHER_CTX* context, const Bytes& iv, const Bytes& plaintext) {
  Sealed sealed{Bytes(plaintext.size()), {}};
  int written = 0;
  const bool ok =
      EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, iv.data()) == 1 &&
      EVP_EncryptUpdate(context, nullptr, &written, iv.data(), 5) == 1 &&
      EVP_EncryptUpdate(context, sealed.ciphertext.data(), &written, plaintext.data(),
                        static_cast<int>(plaintext.size())) == 1 &&
      EVP_EncryptFinal_ex(context, nullptr, &written) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, sealed.tag.data()) == 1;
  require(ok, "cannot seal");
  return sealed;
}

bool open(EVP_CIPHER_CTX* context, const Bytes& iv, Sealed sealed, Bytes& plaintext) {
  int written = 0;
  plaintext.resize(sealed.ciphertext.size());
  return EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, iv.data()) == 1 &&
         EVP_DecryptUpdate(context, nullptr, &written, iv.data(), 5) == 1 &&
         EVP_DecryptUpdate(context, plaintext.data(), &written, sealed.ciphertext.data(),
                           static_cast<int>(plaintext.size())) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, sealed.tag.data()) == 1 &&
         EVP_DecryptFinal_ex(context, nullptr, &written) == 1;
}

class Hammer {
 public:
  explicit Hammer(const char* module)
      : ours_(module), cipher_(ours_.aes_gcm(256)), reference_(theirs_.aes_gcm(256)) {
    set_key(shared_, cipher_);
  }

  // Seals and opens messages of all sizes, on contexts that are new, used, or copied from one that
  // all threads copy from.
  void strike(unsigned seed, int rounds) const {
    std::mt19937 random(seed);
    Context context = copy(), reference = new_context();
    set_key(reference, reference_);
    for (int round = 0; round < rounds; ++round) {
      if (random() % 4 == 0) context = copy();
      const std::size_t nbytes = random() % 6 == 0 ? (512u << 10) + random() % (600u << 10)
                                                   : random() % 4000;
      Bytes iv(12), plaintext(nbytes, static_cast<std::uint8_t>(random())), opened;
      for (auto& byte : iv) byte = static_cast<std::uint8_t>(random());
      Sealed sealed = seal(context.get(), iv, plaintext);
      require(sealed == seal(reference.get(), iv, plaintext), "sealed otherwise");
      require(open(context.get(), iv, sealed, opened) && opened == plaintext, "cannot open");
      sealed.tag[random() % 16] ^= 1;
      require(!open(context.get(), iv, sealed, opened), "a forgery was opened");
    }
  }

  void strike_in_threads(bool forking) const {
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < kThreads; ++seed) {
      threads.emplace_back([this, seed] { strike(seed, kRounds); });
    }
    if (forking) strike_in_child();
    for (std::thread& thread : threads) thread.join();
  }

 private:
  // The child may use what it inherited, and start threads of its own.
  void strike_in_child() const {
    const pid_t child = fork();
    if (child == 0) {
      strike(99, kRounds);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    require(status == 0, "the forked child failed");
  }

  Context copy() const {
    Context made = new_context();
    require(EVP_CIPHER_CTX_copy(made.get(), shared_.get()) == 1, "cannot copy a context");
    return made;
  }

  static void set_key(const Context& context, const FetchedCipher& cipher) {
    require(EVP_EncryptInit_ex(context.get(), cipher.get(), nullptr, kKey.data(), nullptr) == 1,
            "cannot set a key");
  }

  static inline const Bytes kKey = Bytes(32, 7);
  Library theirs_, ours_;
  FetchedCipher cipher_, reference_;
  Context shared_ = new_context();
};

}  // namespace

int main(int count, char** arguments) {
  require(count >= 2, "usage: provider_hammer MODULE [fork]");
  const Hammer hammer(arguments[1]);
  hammer.strike_in_threads(count > 2);
  std::puts("hammer: ok");
}
