#pragma once

#include <filesystem>
#include <string>
#include <string_view>

/// Files are complete or absent: written under a temporary name in the same directory, synced, renamed.
namespace temper::data {

enum class Durable {
  kYes,  // synced: there after a crash
  kNo,   // what can be made again, by readers that take nothing unreadable for it
};

/// Replaces `path` with `content` atomically. Throws RunError naming the path and the system's reason (disk full, ...).
void write_file_atomically(const std::filesystem::path& path, std::string_view content, Durable durable = Durable::kYes);

/// fsync of a directory, so that a rename in it survives a crash.
void sync_directory(const std::filesystem::path& directory);

}  // namespace temper::data
