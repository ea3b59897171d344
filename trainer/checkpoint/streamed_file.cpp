#include "trainer/checkpoint/streamed_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <xxhash.h>

#include "data/io/atomic_file.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

constexpr size_t kChunkBytes = size_t{4}
                               << 20;  // hashed, then written, while it is still in the cache

struct HashDeleter {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};
using Hash = std::unique_ptr<XXH3_state_t, HashDeleter>;

Hash new_hash() {
  Hash hash(XXH3_createState());
  XXH3_64bits_reset(hash.get());
  return hash;
}

}  // namespace

struct StreamedFile::State {
  std::filesystem::path path;
  std::filesystem::path temporary;
  int fd = -1;
  uint64_t expected = 0;
  uint64_t written = 0;
  Hash hash = new_hash();

  [[noreturn]] void fail(const char* action, int reason) const {
    if (reason == ENOSPC || reason == EDQUOT) {
      throw RunError(path.string() + ": disk full: " + std::to_string(expected) +
                     " bytes needed, " + std::to_string(written) + " written; free space in " +
                     path.parent_path().string() + " and run again");
    }
    throw RunError(path.string() + ": cannot " + action + ": " + std::strerror(reason));
  }
};

StreamedFile::StreamedFile(const std::filesystem::path& path, uint64_t expected_bytes)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  s.temporary = path.string() + ".tmp." + std::to_string(::getpid());
  s.expected = expected_bytes;
  s.fd = ::open(s.temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (s.fd < 0) s.fail("create", errno);
  if (expected_bytes > 0 && ::fallocate(s.fd, 0, 0, static_cast<off_t>(expected_bytes)) != 0 &&
      (errno == ENOSPC || errno == EDQUOT)) {  // any other reason: this file system cannot reserve
    const int reason = errno;
    ::close(s.fd);
    ::unlink(s.temporary.c_str());
    s.fail("reserve", reason);
  }
}

StreamedFile::~StreamedFile() {
  if (state_->fd < 0) return;
  ::close(state_->fd);
  ::unlink(state_->temporary.c_str());
}

void StreamedFile::write(const void* data, size_t bytes) {
  State& s = *state_;
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const size_t chunk = std::min(bytes, kChunkBytes);
    XXH3_64bits_update(s.hash.get(), next, chunk);
    for (size_t done = 0; done < chunk;) {
      const ssize_t n = ::write(s.fd, next + done, chunk - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) s.fail("write", errno);
      done += static_cast<size_t>(n);
      s.written += static_cast<uint64_t>(n);
    }
    next += chunk;
    bytes -= chunk;
  }
}

FileDigest StreamedFile::commit() {
  State& s = *state_;
  TEMPER_CHECK(s.written == s.expected, s.path.string() + ": not the bytes that were announced");
  if (::fsync(s.fd) != 0) s.fail("sync", errno);
  if (::rename(s.temporary.c_str(), s.path.c_str()) != 0) s.fail("rename into place", errno);
  const int fd = std::exchange(s.fd, -1);
  if (::close(fd) != 0) s.fail("close", errno);
  data::sync_directory(s.path.parent_path());
  return {s.written, XXH3_64bits_digest(s.hash.get())};
}

FileDigest digest_of(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw UserError(path.string() + ": cannot be read: " + std::strerror(errno));
  const Hash hash = new_hash();
  const auto chunk = std::make_unique_for_overwrite<char[]>(kChunkBytes);
  FileDigest digest;
  for (;;) {
    const ssize_t n = ::read(fd, chunk.get(), kChunkBytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int reason = errno;
      ::close(fd);
      throw UserError(path.string() + ": cannot be read: " + std::strerror(reason));
    }
    if (n == 0) break;
    XXH3_64bits_update(hash.get(), chunk.get(), static_cast<size_t>(n));
    digest.bytes += static_cast<uint64_t>(n);
  }
  ::close(fd);
  digest.xxh3 = XXH3_64bits_digest(hash.get());
  return digest;
}

}  // namespace temper::trainer
