#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace temper::trainer {

/// A running program with pipes to its three streams, in a process group of its own.
///
/// Belongs to the thread that starts it: the kernel kills the program when that thread ends, so
/// also when this process is killed. Descriptors are not blocking and close on exec.
class Process {
 public:
  /// `arguments`: an absolute path or one relative to the working directory, then what follows it.
  /// `environment`: NAME=value, all of it. Throws RunError when it cannot be started.
  Process(const std::vector<std::string>& arguments, const std::vector<std::string>& environment);
  /// end(0).
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  int input() const { return input_; }
  int output() const { return output_; }
  int errors() const { return errors_; }
  void close_input();

  /// Waits `grace_seconds` for the program to end, kills what is left of its group and reaps it.
  /// How it ended: "exit status 3", "signal 9 (Killed)". Again: the same words.
  const std::string& end(double grace_seconds);

 private:
  pid_t id_ = -1;
  int input_ = -1, output_ = -1, errors_ = -1;
  std::string ended_;
};

/// Lines from a descriptor that does not block. It is not owned.
class LineReader {
 public:
  explicit LineReader(int descriptor) : descriptor_(descriptor) {}
  /// Reads what is there, a quarter of a MiB at most; false at the end of the stream.
  bool fill();
  /// The next whole line, without its end.
  std::optional<std::string> next();
  /// What has come and is no line yet.
  std::string_view rest() const { return std::string_view(buffer_).substr(begin_); }
  std::string take_rest();

 private:
  int descriptor_;
  std::string buffer_;
  size_t begin_ = 0;  // of what next() has not given
};

}  // namespace temper::trainer
