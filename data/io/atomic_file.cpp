#include "data/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* action) {
  throw RunError(path.string() + ": cannot " + action + ": " + std::strerror(errno));
}

}  // namespace

void sync_directory(const std::filesystem::path& directory) {
  const int fd = ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail(directory, "open directory");
  ::fsync(fd);  // Some file systems cannot sync a directory; the rename is then as durable as they make it.
  ::close(fd);
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content,
                           Durable durable) {
  // Threads, and processes of several hosts with one number, may write the same file at a time.
  static std::atomic<int> counter = 0;
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::filesystem::path temporary = path.string() + ".tmp." + host + "." +
                                          std::to_string(::getpid()) + "." +
                                          std::to_string(counter++);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail(temporary, "create");
  const auto give_up = [&](const char* action) {
    const int reason = errno;
    ::close(fd);
    ::unlink(temporary.c_str());
    errno = reason;
    fail(path, action);
  };
  for (size_t done = 0; done < content.size();) {
    const ssize_t n = ::write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) give_up("write");
    done += static_cast<size_t>(n);
  }
  if (durable == Durable::kYes && ::fsync(fd) != 0) give_up("sync");
  if (::close(fd) != 0) fail(path, "close");
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail(path, "rename into place");
  if (durable == Durable::kYes) sync_directory(path.parent_path());
}

}  // namespace temper::data
