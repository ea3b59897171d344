#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace temper::data {

/// Bytes [begin, end) of a file as it lies on disk.
struct ByteRange {
  int64_t begin = 0;
  int64_t end = INT64_MAX;
};

/// A file's bytes in order, decompressed when its name ends in .gz or .zst. Never holds more than a
/// buffer of them. One thread.
class Bytes {
 public:
  virtual ~Bytes() = default;
  /// Fills `buffer` as far as it can; 0 at the end. Throws UserError naming the file for damaged or
  /// truncated compression, RunError for a failing disk.
  virtual size_t read(char* buffer, size_t size) = 0;
};

/// `range` is for uncompressed files. Throws UserError for a file that cannot be opened.
std::unique_ptr<Bytes> open_bytes(const std::filesystem::path& file, ByteRange range = {});

/// Everything that is left.
std::string read_all(Bytes& bytes);

/// Lines of `bytes` without their ends (LF or CRLF); a UTF-8 byte order mark at the front is left
/// out.
class Lines {
 public:
  explicit Lines(std::unique_ptr<Bytes> bytes);
  /// `line` is valid until the next call. False at the end.
  bool next(std::string_view& line);
  /// Of the last line, from 1.
  int64_t number() const { return number_; }
  bool ended_with_crlf() const { return crlf_; }

 private:
  std::unique_ptr<Bytes> bytes_;
  std::string buffer_;
  size_t begin_ = 0;  // of what is not yet given
  bool at_end_ = false;
  bool crlf_ = false;
  int64_t number_ = 0;
};

}  // namespace temper::data
