#include "parallel/store/rendezvous.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <system_error>
#include <thread>

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "parallel/collective_timeout.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using recipes::Rendezvous;

constexpr auto kPause = std::chrono::milliseconds(100);  // between two looks for rank 0
constexpr int kConnectMilliseconds = 2000;

struct Names {
  const char *rank, *size, *local_rank;
};
constexpr std::array<Names, 4> kLaunchers = {{
    {"TEMPER_RANK", "TEMPER_WORLD_SIZE", "TEMPER_LOCAL_RANK"},
    {"RANK", "WORLD_SIZE", "LOCAL_RANK"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"},
}};

std::optional<int> number_in(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return {};
  int number = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, number);
  if (error != std::errc() || stop != end || number < 0)
    throw UserError(std::string(name) + " = '" + text + "': must be a whole number, at least 0");
  return number;
}

std::string quoted(const Rendezvous& rendezvous) {
  return "parallel.rendezvous = \"" + text_of(rendezvous) + "\": ";
}

enum class Answer { kYes, kNo, kUnknownHost };

struct CloseSocket {
  int handle;
  ~CloseSocket() { close(handle); }
};

bool accepts(const addrinfo& address) {
  const CloseSocket connection{
      socket(address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  if (connection.handle < 0) return false;
  if (connect(connection.handle, address.ai_addr, address.ai_addrlen) == 0) return true;
  if (errno != EINPROGRESS) return false;
  pollfd ready{.fd = connection.handle, .events = POLLOUT, .revents = 0};
  int error = 0;
  socklen_t length = sizeof(error);
  return poll(&ready, 1, kConnectMilliseconds) == 1 &&
         getsockopt(connection.handle, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
}

/// Whether anything answers at `port` of `host`. Asked before LibTorch joins, since that writes a
/// line for every try that fails.
Answer answers(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error == EAI_NONAME) return Answer::kUnknownHost;
  if (error != 0) return Answer::kNo;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    if (accepts(*address)) return Answer::kYes;
  }
  return Answer::kNo;
}

std::unique_ptr<KeyStore> serve_at(const Rendezvous& rendezvous) {
  try {
    return KeyStore::serve(rendezvous.port);
  } catch (const UserError& why) {
    throw UserError(quoted(rendezvous) + why.what());
  }
}

// ---- tcp ---------------------------------------------------------------------------------------

std::unique_ptr<KeyStore> serve_tcp(const Rendezvous& rendezvous, const std::string& host) {
  auto store = serve_at(rendezvous);
  if (answers(rendezvous.host, rendezvous.port) != Answer::kYes)
    throw UserError(quoted(rendezvous) + "does not lead to rank 0, which runs on " + host +
                    ": name this host");
  return store;
}

std::unique_ptr<KeyStore> join_tcp(const Rendezvous& rendezvous, double timeout_seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(timeout_seconds);
  while (answers(rendezvous.host, rendezvous.port) != Answer::kYes) {
    if (Clock::now() > end)
      throw UserError(quoted(rendezvous) + "nobody answers within " +
                      timeout_text(timeout_seconds) + ": rank 0 does not run there");
    std::this_thread::sleep_for(kPause);
  }
  auto store = KeyStore::join(rendezvous.host, rendezvous.port);
  if (!store) throw UserError(quoted(rendezvous) + "something other than rank 0 answers");
  return store;
}

// ---- file --------------------------------------------------------------------------------------

/// What the file says: where rank 0 serves, and a word that its store knows.
struct Address {
  std::string host;
  int port = 0;
  std::string token;
};

std::string key_of(const std::string& token) { return "run " + token; }

std::unique_ptr<KeyStore> serve_file(const Rendezvous& rendezvous, const std::string& host) {
  auto store = serve_at(rendezvous);
  std::random_device random;
  const std::string token = std::to_string(random()) + std::to_string(random());
  store->set(key_of(token), "");
  // Complete or absent, and in the place of any earlier one.
  const fs::path written = rendezvous.file + "." + token;
  std::ofstream file(written);
  file << host << " " << store->port() << " " << token << std::endl;
  std::error_code error;
  if (file) fs::rename(written, rendezvous.file, error);
  if (!file || error) {
    const std::string why = error ? error.message() : std::strerror(errno);
    fs::remove(written, error);
    throw UserError(quoted(rendezvous) + "cannot be written on " + host + ": " + why);
  }
  return store;
}

std::unique_ptr<KeyStore> join_address(const Address& address, const std::string& own_host) {
  // A host knows itself by this name, whatever the network calls it.
  const std::string host = address.host == own_host ? "localhost" : address.host;
  if (answers(host, address.port) != Answer::kYes) return nullptr;
  auto store = KeyStore::join(host, address.port);
  if (!store || !store->has(key_of(address.token))) return nullptr;
  return store;
}

std::unique_ptr<KeyStore> join_file(const Rendezvous& rendezvous, const std::string& host,
                                    double timeout_seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(timeout_seconds);
  while (true) {
    Address address;
    std::ifstream file(rendezvous.file);
    const bool read = static_cast<bool>(file >> address.host >> address.port >> address.token);
    if (read) {
      if (auto store = join_address(address, host)) return store;
    }
    if (Clock::now() > end) {
      const std::string waited = " within " + timeout_text(timeout_seconds) + ": ";
      throw UserError(quoted(rendezvous) +
                      (read ? "names " + address.host + ":" + std::to_string(address.port) +
                                  ", where rank 0 does not answer" + waited +
                                  "left from an earlier run (remove it), or " + host +
                                  " does not reach that host"
                            : "is not there" + waited + "rank 0 has not started, or " + host +
                                  " does not see the directory that rank 0 writes to"));
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

std::optional<Place> place_by_launcher() {
  for (const Names& names : kLaunchers) {
    const auto rank = number_in(names.rank);
    const auto size = number_in(names.size);
    if (!rank && !size) continue;
    if (!rank || !size || *rank >= *size)
      throw UserError(std::string(names.rank) + " must be there and below " + names.size +
                      ", so that ranks without MPI know their place");
    return Place{.rank = *rank, .size = *size, .local_rank = number_in(names.local_rank)};
  }
  return {};
}

std::unique_ptr<KeyStore> open_store(const Rendezvous& rendezvous, int rank,
                                     const std::string& host, double timeout_seconds) {
  if (rendezvous.kind == Rendezvous::Kind::kFile)
    return rank == 0 ? serve_file(rendezvous, host) : join_file(rendezvous, host, timeout_seconds);
  if (answers(rendezvous.host, rendezvous.port) == Answer::kUnknownHost)
    throw UserError(quoted(rendezvous) + "unknown host '" + rendezvous.host + "'");
  return rank == 0 ? serve_tcp(rendezvous, host) : join_tcp(rendezvous, timeout_seconds);
}

void close_rendezvous(const Rendezvous& rendezvous) {
  std::error_code ignored;
  if (rendezvous.kind == Rendezvous::Kind::kFile) fs::remove(rendezvous.file, ignored);
}

std::string text_of(const Rendezvous& rendezvous) {
  if (rendezvous.kind == Rendezvous::Kind::kFile) return "file://" + rendezvous.file;
  const bool brackets = rendezvous.host.find(':') != std::string::npos;
  return "tcp://" + (brackets ? "[" + rendezvous.host + "]" : rendezvous.host) + ":" +
         std::to_string(rendezvous.port);
}

}  // namespace temper::parallel
