#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/readers/reader.h"

namespace temper::data {

/// A data file as the cache knows it: by its content.
struct InputFile {
  std::filesystem::path path;
  std::string hash;  // of all bytes
  std::vector<ReaderOptions>
      chunks;  // of 64 MiB, cut at line ends where the format allows; else one
};

/// Reads the file once; after that `cache` remembers, for this path, size, time of change and
/// inode. Throws UserError.
InputFile inspect_file(const std::filesystem::path& file, const std::filesystem::path& cache);

/// XXH3, 128 bits, in hexadecimal.
std::string hash_of(std::string_view text);

}  // namespace temper::data
