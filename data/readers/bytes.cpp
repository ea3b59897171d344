#include "data/readers/bytes.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <zlib.h>
#include <zstd.h>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

constexpr size_t kBufferBytes = 1 << 20;

class PlainBytes : public Bytes {
 public:
  PlainBytes(const std::filesystem::path& file, ByteRange range)
      : file_(file), next_(range.begin), end_(range.end) {
    fd_ = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) throw UserError(file.string() + ": cannot read: " + std::strerror(errno));
  }
  ~PlainBytes() override { ::close(fd_); }

  size_t read(char* buffer, size_t size) override {
    const size_t wanted = std::min(size, static_cast<size_t>(std::max<int64_t>(end_ - next_, 0)));
    size_t done = 0;
    while (done < wanted) {
      const ssize_t n = ::pread(fd_, buffer + done, wanted - done, next_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw RunError(file_.string() + ": cannot read: " + std::strerror(errno));
      if (n == 0) break;
      done += static_cast<size_t>(n);
      next_ += n;
    }
    return done;
  }

 private:
  std::filesystem::path file_;
  int fd_ = -1;
  int64_t next_;
  int64_t end_;
};

[[noreturn]] void refuse_compressed(const std::filesystem::path& file, const std::string& kind,
                                    bool truncated) {
  throw UserError(file.string() + ": " + (truncated ? "ends within" : "is not") + " " + kind +
                  " data: the file is " + (truncated ? "truncated" : "damaged or misnamed"));
}

// Members may follow each other, as `cat a.gz b.gz` makes them.
class GzipBytes : public Bytes {
 public:
  explicit GzipBytes(const std::filesystem::path& file)
      : file_(file), source_(file, {}), input_(kBufferBytes) {
    // 16: a gzip header is required.
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) throw RunError("zlib cannot start");
  }
  ~GzipBytes() override { inflateEnd(&stream_); }

  size_t read(char* buffer, size_t size) override {
    stream_.next_out = reinterpret_cast<Bytef*>(buffer);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0) {
        stream_.avail_in = static_cast<uInt>(source_.read(input_.data(), input_.size()));
        stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
        if (stream_.avail_in == 0) {
          if (within_member_) refuse_compressed(file_, "gzip", true);
          break;
        }
      }
      if (!within_member_) inflateReset(&stream_);
      within_member_ = true;
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) within_member_ = false;
      if (status != Z_OK && status != Z_STREAM_END) refuse_compressed(file_, "gzip", false);
    }
    return size - stream_.avail_out;
  }

 private:
  std::filesystem::path file_;
  PlainBytes source_;
  std::vector<char> input_;
  z_stream stream_{};
  bool within_member_ = false;
};

class ZstdBytes : public Bytes {
 public:
  explicit ZstdBytes(const std::filesystem::path& file)
      : file_(file), source_(file, {}), input_(kBufferBytes), stream_(ZSTD_createDStream()) {}
  ~ZstdBytes() override { ZSTD_freeDStream(stream_); }

  size_t read(char* buffer, size_t size) override {
    ZSTD_outBuffer output{buffer, size, 0};
    while (output.pos < size) {
      if (pending_.pos == pending_.size) {
        pending_ = {input_.data(), source_.read(input_.data(), input_.size()), 0};
        if (pending_.size == 0) {
          if (within_frame_) refuse_compressed(file_, "zstd", true);
          break;
        }
      }
      const size_t status = ZSTD_decompressStream(stream_, &output, &pending_);
      if (ZSTD_isError(status) != 0) refuse_compressed(file_, "zstd", false);
      within_frame_ = status != 0;
    }
    return output.pos;
  }

 private:
  std::filesystem::path file_;
  PlainBytes source_;
  std::vector<char> input_;
  ZSTD_DStream* stream_;
  ZSTD_inBuffer pending_{nullptr, 0, 0};
  bool within_frame_ = false;
};

}  // namespace

std::unique_ptr<Bytes> open_bytes(const std::filesystem::path& file, ByteRange range) {
  if (file.extension() == ".gz") return std::make_unique<GzipBytes>(file);
  if (file.extension() == ".zst") return std::make_unique<ZstdBytes>(file);
  return std::make_unique<PlainBytes>(file, range);
}

std::string read_all(Bytes& bytes) {
  std::string text;
  for (;;) {
    const size_t before = text.size();
    text.resize(before + kBufferBytes);
    const size_t got = bytes.read(text.data() + before, kBufferBytes);
    text.resize(before + got);
    if (got == 0) return text;
  }
}

Lines::Lines(std::unique_ptr<Bytes> bytes) : bytes_(std::move(bytes)) {}

bool Lines::next(std::string_view& line) {
  size_t searched = begin_;
  size_t end = buffer_.find('\n', searched);
  while (end == std::string::npos && !at_end_) {
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched = buffer_.size();
    buffer_.resize(searched + kBufferBytes);
    const size_t got = bytes_->read(buffer_.data() + searched, kBufferBytes);
    buffer_.resize(searched + got);
    at_end_ = got == 0;
    end = buffer_.find('\n', searched);
  }
  if (begin_ == buffer_.size()) return false;
  const size_t stop = std::min(end, buffer_.size());
  line = std::string_view(buffer_).substr(begin_, stop - begin_);
  begin_ = std::min(stop + 1, buffer_.size());
  crlf_ = line.ends_with('\r');
  if (crlf_) line.remove_suffix(1);
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (++number_ == 1 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  return true;
}

}  // namespace temper::data
