#pragma once

#include <filesystem>
#include <string_view>

namespace temper::trainer {

/// A file that only grows, record by record; every record is one write, so that a killed run leaves
/// whole records (all but at most the last). Throws RunError naming the path.
class AppendFile {
 public:
  explicit AppendFile(std::filesystem::path path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  void append(std::string_view record);

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace temper::trainer
