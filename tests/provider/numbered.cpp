// Messages numbered as NVIDIA's driver numbers them, for which keystream is made ahead: large ones
// with small ones in between, other keys and gaps now and then; beside the default provider's.
//
//     provider_numbered MODULE MESSAGES SEED [fork]
//
// Exit status 0 if every byte and tag is the same; prints how many bytes had their keystream ready.
// With `fork`, a child goes on in the midst of it, with what it inherited.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "evp.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Message {
  Bytes bytes;
  std::array<std::uint8_t, 16> tag;
};

class Numbered {
 public:
  Numbered(const char* module, unsigned seed) : ours_(module), random_(seed) {
    cipher_[kTheirs] = theirs_.aes_gcm(256);
    cipher_[kOurs] = ours_.aes_gcm(256);
    rekey();
  }

  void go_on(int messages) {
    for (int done = 0; done < messages; ++done) {
      if (below(60) == 0) rekey();
      if (below(60) == 0) number_ += below(100);
      if (below(30) == 0) copy_context();
      if (below(40) != 0) ++number_;  // else the same IV again: no driver does, but EVP may
      message();
      // Long enough, most times, for what is to be made ahead.
      if (below(3) == 0) std::this_thread::sleep_for(std::chrono::microseconds(below(4000)));
    }
  }

  std::uint64_t ahead_bytes() const { return ours_.number("pipellm-served-ahead-bytes"); }

 private:
  static constexpr std::size_t kTheirs = 0, kOurs = 1;

  std::uint32_t below(std::uint32_t limit) {
    return std::uniform_int_distribution<std::uint32_t>(0, limit - 1)(random_);
  }

  // A new key, and a direction: a driver keeps one context for each.
  void rekey() {
    encrypting_ = below(2) == 0;
    number_ = below(2) == 0 ? 0 : below(1u << 31);
    for (auto& byte : mask_) byte = static_cast<std::uint8_t>(random_());
    Bytes key(32);
    for (auto& byte : key) byte = static_cast<std::uint8_t>(random_());
    const bool anew = below(2) == 0 || context_[0] == nullptr;
    for (const std::size_t side : {kTheirs, kOurs}) {
      if (anew) context_[side] = new_context();
      require(EVP_CipherInit_ex(context_[side].get(), anew ? cipher_[side].get() : nullptr, nullptr,
                                key.data(), nullptr, 1) == 1,
              "cannot set a key");
    }
  }

  void copy_context() {
    for (Context& context : context_) {
      Context copy = new_context();
      require(EVP_CIPHER_CTX_copy(copy.get(), context.get()) == 1, "cannot copy a context");
      context = std::move(copy);
    }
  }

  void message() {
    const std::size_t nbytes = below(4) == 0   ? 1 + below(4096)
                               : below(3) == 0 ? (256u << 10) + below(1u << 20)
                                               : 1u << 20;
    const std::size_t additional = below(8) == 0 ? 1 + below(12) : 0;
    const std::size_t first = below(8) == 0 ? 1 + below(static_cast<std::uint32_t>(nbytes)) : nbytes;
    const bool in_place = below(3) == 0;
    const Message plain{Bytes(nbytes, static_cast<std::uint8_t>(random_())), {}};
    const Message sealed = run(kTheirs, true, plain, additional, first, in_place);
    if (encrypting_) {
      const Message ours = run(kOurs, true, plain, additional, first, in_place);
      require(ours.bytes == sealed.bytes, "sealed to other bytes");
      require(ours.tag == sealed.tag, "sealed with another tag");
    } else {
      const Message ours = run(kOurs, false, sealed, additional, first, in_place);
      require(ours.bytes == plain.bytes, "opened to other bytes");
    }
  }

  // One message through EVP, in one piece or two. Opening succeeds if the tag is right.
  Message run(std::size_t side, bool encrypt, const Message& message, std::size_t additional,
              std::size_t first, bool in_place) {
    EVP_CIPHER_CTX* const context = context_[side].get();
    const std::size_t nbytes = message.bytes.size();
    Message done{in_place ? message.bytes : Bytes(nbytes), message.tag};
    const std::uint8_t* const from = in_place ? done.bytes.data() : message.bytes.data();
    std::array<std::uint8_t, 12> iv = mask_;
    for (unsigned byte = 0; byte < 4; ++byte) {
      iv[byte] = static_cast<std::uint8_t>(iv[byte] ^ (number_ >> (8 * byte)));
    }
    int written = 0;
    const auto update = [&](std::uint8_t* to, const std::uint8_t* piece, std::size_t size) {
      return size == 0 ||
             EVP_CipherUpdate(context, to, &written, piece, static_cast<int>(size)) == 1;
    };
    const bool ok =
        EVP_CipherInit_ex(context, nullptr, nullptr, nullptr, iv.data(), encrypt) == 1 &&
        update(nullptr, mask_.data(), additional) && update(done.bytes.data(), from, first) &&
        update(done.bytes.data() + first, from + first, nbytes - first) &&
        (encrypt ||
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, done.tag.data()) == 1) &&
        EVP_CipherFinal_ex(context, nullptr, &written) == 1 &&
        (!encrypt ||
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, done.tag.data()) == 1);
    require(ok, encrypt ? "cannot seal" : "cannot open");
    return done;
  }

  Library theirs_, ours_;
  std::array<FetchedCipher, 2> cipher_;
  std::array<Context, 2> context_;
  std::mt19937 random_;
  bool encrypting_ = true;
  std::uint32_t number_ = 0;
  std::array<std::uint8_t, 12> mask_{};
};

}  // namespace

int main(int count, char** arguments) {
  require(count >= 4, "usage: provider_numbered MODULE MESSAGES SEED [fork]");
  const int messages = std::atoi(arguments[2]);
  Numbered numbered(arguments[1], static_cast<unsigned>(std::atoi(arguments[3])));
  numbered.go_on(messages / 2);
  if (count > 4) {
    const pid_t child = fork();
    if (child == 0) {
      numbered.go_on(messages / 2);
      _exit(0);
    }
    numbered.go_on(messages / 2);
    int status = 0;
    waitpid(child, &status, 0);
    require(status == 0, "the forked child failed");
  } else {
    numbered.go_on(messages - messages / 2);
  }
  std::printf("%d messages, %llu bytes ahead\n", messages,
              static_cast<unsigned long long>(numbered.ahead_bytes()));
}
