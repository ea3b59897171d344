#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

namespace temper::trainer {

/// What a file was meant to hold when it was written: how a checkpoint's manifest recognises
/// damage.
struct FileDigest {
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;  // XXH3, 64 bits, seed 0
};

/// A large file, written front to back, complete or absent: a temporary name in the same directory
/// until commit() has synced and renamed it. The destructor removes what was not committed. Hashes
/// what passes through. One thread.
class StreamedFile {
 public:
  /// Reserves `expected_bytes` where the file system can, so that a full disk shows before the work
  /// is done. Throws RunError ("PATH: disk full ...") as do the others.
  StreamedFile(const std::filesystem::path& path, uint64_t expected_bytes);
  ~StreamedFile();
  StreamedFile(const StreamedFile&) = delete;
  StreamedFile& operator=(const StreamedFile&) = delete;

  void write(const void* data, size_t bytes);
  FileDigest commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads `path` to its end. Throws UserError when it cannot be read.
FileDigest digest_of(const std::filesystem::path& path);

}  // namespace temper::trainer
