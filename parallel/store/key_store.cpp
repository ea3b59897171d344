#include "parallel/store/key_store.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

using Milliseconds = std::chrono::milliseconds;
using Bytes = std::vector<uint8_t>;

constexpr Milliseconds kAnswerTime{10000};  // of a store that is there
// The store takes values below 8 MiB.
constexpr size_t kPieceBytes = 4 << 20;
// How a value begins: its bytes, or the number of its pieces (under "key#0", "key#1", ...).
constexpr char kWhole = 'w';
constexpr char kPieces = 'p';

std::string piece_key(const std::string& key, size_t piece) {
  return key + "#" + std::to_string(piece);
}

Bytes with_mark(char mark, const std::string& bytes) {
  Bytes value(1 + bytes.size(), static_cast<uint8_t>(mark));
  std::copy(bytes.begin(), bytes.end(), value.begin() + 1);
  return value;
}

/// LibTorch writes lines of its own for a wait that ends without its keys, and pages for a rank 0
/// that is lost: what is wrong is said by those who call.
class Silence {
 public:
  Silence() : before_(std::exchange(FLAGS_caffe2_log_level, kFatal)) {}
  ~Silence() { FLAGS_caffe2_log_level = before_; }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  static constexpr int kFatal = 3;
  int before_;
};

c10d::TCPStoreOptions options_for(int port, bool serves) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = serves;
  options.waitWorkers = false;
  options.timeout = kAnswerTime;
  return options;
}

}  // namespace

struct KeyStore::State {
  c10::intrusive_ptr<c10d::TCPStore> store;

  template <class Call>
  auto answered(const Call& call) {
    const Silence silence;
    try {
      return call(*store);
    } catch (const c10::DistError&) {
      throw RunError("rank 0 is lost: " + store->getHost() + ":" +
                     std::to_string(store->getPort()) + " does not answer");
    }
  }
};

KeyStore::KeyStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
KeyStore::~KeyStore() = default;

std::unique_ptr<KeyStore> KeyStore::serve(int port) {
  auto state = std::make_unique<State>();
  const Silence silence;
  try {
    state->store = c10::make_intrusive<c10d::TCPStore>("localhost", options_for(port, true));
  } catch (const c10::Error& error) {
    const std::string why = error.what_without_backtrace();
    const bool taken = why.find("EADDRINUSE") != std::string::npos;
    throw UserError(taken ? "port " + std::to_string(port) + " is in use here"
                          : why.substr(0, why.find('\n')));
  }
  return std::unique_ptr<KeyStore>(new KeyStore(std::move(state)));
}

std::unique_ptr<KeyStore> KeyStore::join(const std::string& host, int port) {
  auto state = std::make_unique<State>();
  const Silence silence;
  try {
    state->store = c10::make_intrusive<c10d::TCPStore>(host, options_for(port, false));
  } catch (const c10::Error&) {
    return nullptr;
  }
  return std::unique_ptr<KeyStore>(new KeyStore(std::move(state)));
}

int KeyStore::port() const { return state_->store->getPort(); }

void KeyStore::set(const std::string& key, const std::string& bytes) {
  state_->answered([&](c10d::TCPStore& store) {
    if (bytes.size() <= kPieceBytes) return store.set(key, with_mark(kWhole, bytes));
    // The pieces first: who finds the key finds them too.
    size_t pieces = 0;
    for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
      const std::string piece = bytes.substr(begin, kPieceBytes);
      store.set(piece_key(key, pieces++), Bytes(piece.begin(), piece.end()));
    }
    store.set(key, with_mark(kPieces, std::to_string(pieces)));
  });
}

bool KeyStore::has(const std::string& key) {
  return state_->answered([&](c10d::TCPStore& store) { return store.check({key}); });
}

bool KeyStore::wait(const std::vector<std::string>& keys, double seconds) {
  const auto time = std::max(Milliseconds(1), Milliseconds(static_cast<int64_t>(seconds * 1000)));
  return state_->answered([&](c10d::TCPStore& store) {
    try {
      store.wait(keys, time);
      return true;
    } catch (const c10::DistStoreError&) {
      return false;
    }
  });
}

std::vector<std::string> KeyStore::get(const std::vector<std::string>& keys) {
  const auto values = state_->answered([&](c10d::TCPStore& store) { return store.multiGet(keys); });
  std::vector<std::string> texts;
  for (size_t i = 0; i < keys.size(); ++i) {
    const Bytes& value = values[i];
    TEMPER_CHECK(!value.empty(), "a value has a mark");
    std::string& text = texts.emplace_back(value.begin() + 1, value.end());
    if (value.front() == kWhole) continue;
    const size_t pieces = std::stoul(text);
    text.clear();
    for (size_t piece = 0; piece < pieces; ++piece) {
      const Bytes part = state_->answered(
          [&](c10d::TCPStore& store) { return store.get(piece_key(keys[i], piece)); });
      text.append(part.begin(), part.end());
    }
  }
  return texts;
}

void KeyStore::remove(const std::string& key, size_t bytes) {
  state_->answered([&](c10d::TCPStore& store) {
    store.deleteKey(key);
    for (size_t piece = 0; bytes > kPieceBytes && piece * kPieceBytes < bytes; ++piece)
      store.deleteKey(piece_key(key, piece));
  });
}

int64_t KeyStore::count(const std::string& key) {
  return state_->answered([&](c10d::TCPStore& store) { return store.add(key, 1); });
}

}  // namespace temper::parallel
