#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/readers/reader.h"

namespace temper::data {

inline constexpr int64_t kChunkBytes = 64 << 20;

/// A data file as the cache knows it: by its content.
struct InputFile {
  std::filesystem::path path;
  std::string hash;  // of all bytes
  std::vector<ReaderOptions>
      chunks;  // of kChunkBytes, cut at line ends where the format allows; else one
};

/// Reads the file once; after that `cache` remembers, for this path, size, time of change and
/// inode. Throws UserError.
InputFile inspect_file(const std::filesystem::path& file, const std::filesystem::path& cache);

/// What inspect_file() gave before for the file as it is now; empty if it would have to be read.
std::optional<InputFile> remembered_file(const std::filesystem::path& file,
                                         const std::filesystem::path& cache);

/// XXH3, 128 bits, in hexadecimal.
std::string hash_of(std::string_view text);

}  // namespace temper::data
