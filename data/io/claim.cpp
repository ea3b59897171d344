#include "data/io/claim.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

constexpr int64_t kLostAfterSeconds = 120;

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

// Clock ticks from boot to the start of the process, so that a number used again is not taken for
// the old process; "" when dead.
std::string start_time(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string stat;
  std::getline(file, stat);
  const size_t name_end = stat.rfind(')');  // the name may hold spaces
  if (name_end == std::string::npos) return "";
  std::istringstream fields(stat.substr(name_end + 1));
  std::string field;
  for (int i = 0; i < 20; ++i) fields >> field;  // field 22 of proc(5)
  return field;
}

struct Holder {
  std::string host, pid, started;
};

Holder read_holder(const std::filesystem::path& lock) {
  Holder holder;
  std::ifstream(lock) >> holder.host >> holder.pid >> holder.started;
  return holder;
}

bool is_lost(const std::filesystem::path& lock) {
  struct stat status {};
  if (::stat(lock.c_str(), &status) != 0) return false;  // just given up
  if (::time(nullptr) - status.st_mtime > kLostAfterSeconds) return true;
  const Holder holder = read_holder(lock);
  return holder.host == host_name() && start_time(holder.pid) != holder.started;
}

}  // namespace

std::optional<Claim> Claim::take(const std::filesystem::path& lock) {
  static std::atomic<int> counter = 0;
  const std::string pid = std::to_string(::getpid());
  const std::string host = host_name();
  const std::string mine = lock.string() + "." + host + "." + pid + "." + std::to_string(counter++);
  if (std::filesystem::exists(lock)) {
    if (!is_lost(lock)) return std::nullopt;
    ::rename(lock.c_str(), mine.c_str());
    ::unlink(mine.c_str());
  }
  {
    std::ofstream file(mine);
    file << host << ' ' << pid << ' ' << start_time(pid) << '\n';
    if (!file.flush()) {
      const std::string reason = std::strerror(errno);
      ::unlink(mine.c_str());
      throw RunError(mine + ": cannot write: " + reason);
    }
  }
  const bool taken = ::link(mine.c_str(), lock.c_str()) == 0;
  ::unlink(mine.c_str());
  if (!taken) return std::nullopt;
  return Claim(lock);
}

Claim::Claim(std::filesystem::path lock) : lock_(std::move(lock)) {}

Claim::Claim(Claim&& other) noexcept : lock_(std::exchange(other.lock_, {})) {}

Claim::~Claim() {
  if (!lock_.empty()) ::unlink(lock_.c_str());
}

void Claim::refresh() const { ::utimensat(AT_FDCWD, lock_.c_str(), nullptr, 0); }

}  // namespace temper::data
