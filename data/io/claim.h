#pragma once

#include <filesystem>
#include <optional>
#include <string>

/// A piece of work that one process takes: a lock file made by link(2), which is atomic on network
/// file systems too. It holds host, process and the process's start time. A holder that is dead on
/// this host, or that has not refreshed its lock for two minutes, has lost it. Should two processes
/// ever hold one claim, both do the same work and each rename is whole: claims save time,
/// correctness does not rest on them.
namespace temper::data {

class Claim {
 public:
  /// Empty when another process or thread holds it. Throws RunError where no file can be made.
  static std::optional<Claim> take(const std::filesystem::path& lock);
  Claim(Claim&& other) noexcept;
  Claim& operator=(Claim&&) = delete;
  ~Claim();
  /// Tells the others that the holder is alive; to be called every few seconds.
  void refresh() const;

 private:
  explicit Claim(std::filesystem::path lock);
  std::filesystem::path lock_;
};

}  // namespace temper::data
