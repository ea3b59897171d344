#include "trainer/metrics/append_file.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

AppendFile::AppendFile(std::filesystem::path path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw RunError(path_.string() + ": cannot open: " + std::strerror(errno));
}

AppendFile::~AppendFile() { ::close(fd_); }

void AppendFile::append(std::string_view record) {
  while (!record.empty()) {
    const ssize_t n = ::write(fd_, record.data(), record.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const bool full = errno == ENOSPC || errno == EDQUOT;
      throw RunError(path_.string() + ": " +
                     (full ? "disk full" : std::string("cannot write: ") + std::strerror(errno)));
    }
    record.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace temper::trainer
