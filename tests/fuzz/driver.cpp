#include "tests/fuzz/driver.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include <unistd.h>

namespace {

/// Places of the code that were reached: since the run began, and ever.
std::array<uint8_t, 1 << 18> reached, ever;

}  // namespace

/// The compiler calls this at every branch of instrumented code.
extern "C" __attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc() {
  const auto place = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  reached[(place ^ (place >> 18)) % reached.size()] = 1;
}

namespace temper::fuzz {
namespace {

constexpr size_t kMaxBytes = 1 << 14;
constexpr unsigned kMaxSeconds = 20;  // of one input

class Fuzzer {
 public:
  Fuzzer(Target target, uint64_t seed)
      : target_(std::move(target)),
        random_(seed),
        file_(std::filesystem::temp_directory_path() /
              ("temper-fuzz-" + std::to_string(::getpid()) + target_.suffix)) {
    if (target_.seeds.empty()) target_.seeds.emplace_back();
  }
  ~Fuzzer() { std::filesystem::remove(file_); }
  Fuzzer(const Fuzzer&) = delete;
  Fuzzer& operator=(const Fuzzer&) = delete;

  void run_for(std::chrono::seconds duration) {
    std::printf("the input at work: %s\n", file_.c_str());
    std::fflush(stdout);
    const auto end = std::chrono::steady_clock::now() + duration;
    for (const std::string& seed : target_.seeds) try_input(seed);
    if (corpus_.empty()) corpus_ = target_.seeds;  // a build that does not say what is reached
    while (std::chrono::steady_clock::now() < end)
      try_input(changed(corpus_[below(corpus_.size())]));
    std::printf("%llu inputs, %zu kept, %zu places of the code reached\n",
                static_cast<unsigned long long>(runs_), corpus_.size(),
                static_cast<size_t>(std::count(ever.begin(), ever.end(), 1)));
  }

  void try_input(const std::string& input) {
    std::ofstream(file_, std::ios::binary | std::ios::trunc) << input;
    std::fill(reached.begin(), reached.end(), uint8_t{0});
    ::alarm(kMaxSeconds);
    target_.run(input, file_);
    ::alarm(0);
    ++runs_;
    bool is_new = false;
    for (size_t i = 0; i < reached.size(); ++i) {
      is_new |= reached[i] > ever[i];
      ever[i] |= reached[i];
    }
    if (is_new) corpus_.push_back(input);
  }

 private:
  size_t below(size_t count) {
    return std::uniform_int_distribution<size_t>(0, count - 1)(random_);
  }

  std::string changed(std::string input) {
    for (size_t times = 1 + below(6); times > 0; --times) change(input);
    if (input.size() > kMaxBytes) input.resize(kMaxBytes);
    return input;
  }

  /// One change: a bit, a byte or a word, a piece left out, doubled, moved or taken from another
  /// input, a number beyond what is expected.
  void change(std::string& input) {
    static constexpr uint64_t kNumbers[] = {0,
                                            1,
                                            0x7f,
                                            0x80,
                                            0xff,
                                            0x7fff,
                                            0xffff,
                                            0x7fffffff,
                                            0xffffffff,
                                            0x7fffffffffffffff,
                                            0xffffffffffffffff};
    const size_t at = below(input.size() + 1);
    const size_t length = std::min(input.size() - at, 1 + below(1 + below(64)));
    switch (below(9)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(below(256));
        break;
      case 2:
        input.insert(at, 1, static_cast<char>(below(256)));
        break;
      case 3:
        input.erase(at, length);
        break;
      case 4:
        input.insert(at, input.substr(at, length));
        break;
      case 5: {
        const std::string piece = input.substr(at, length);
        input.insert(below(input.size() + 1), piece);
        break;
      }
      case 6: {
        const std::string& other = corpus_[below(corpus_.size())];
        const size_t from = below(other.size() + 1);
        input.insert(at, other.substr(from, 1 + below(64)));
        break;
      }
      case 7: {
        const uint64_t number = kNumbers[below(std::size(kNumbers))];
        const size_t bytes = std::min(input.size() - at, size_t{1} << below(4));
        for (size_t i = 0; i < bytes; ++i) input[at + i] = static_cast<char>(number >> (8 * i));
        break;
      }
      default:
        if (!target_.words.empty()) input.insert(at, target_.words[below(target_.words.size())]);
    }
  }

  Target target_;
  std::mt19937_64 random_;
  std::filesystem::path file_;
  std::vector<std::string> corpus_;
  uint64_t runs_ = 0;
};

}  // namespace
}  // namespace temper::fuzz

int main(int count, char** arguments) {
  using temper::fuzz::Fuzzer;
  if (count < 2) {
    std::fprintf(stderr, "usage: %s SECONDS [SEED] | FILE ...\n", arguments[0]);
    return 2;
  }
  if (std::filesystem::exists(arguments[1])) {
    Fuzzer fuzzer(temper::fuzz::target(), 0);
    for (int i = 1; i < count; ++i) {
      std::ifstream file(arguments[i], std::ios::binary);
      fuzzer.try_input({std::istreambuf_iterator<char>(file), {}});
    }
    return 0;
  }
  const uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1;
  Fuzzer(temper::fuzz::target(), seed).run_for(std::chrono::seconds(std::atoi(arguments[1])));
  return 0;
}
