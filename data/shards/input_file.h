#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/readers/reader.h"
#include "data/shards/prepare.h"

namespace temper::data {

/// A data file as the cache knows it: by its content.
struct InputFile {
  std::filesystem::path path;
  std::string hash;  // of all bytes
  int64_t chunk_bytes;
  std::vector<ReaderOptions> chunks;  // cut at line ends where the format allows; else one
};

/// Reads the file once; after that `cache` remembers, for this path, size, time of change and
/// inode. Throws UserError.
InputFile inspect_file(const std::filesystem::path& file, const std::filesystem::path& cache,
                       int64_t chunk_bytes = kChunkBytes);

/// What inspect_file() gave before for the file as it is now; empty if it would have to be read.
std::optional<InputFile> remembered_file(const std::filesystem::path& file,
                                         const std::filesystem::path& cache, int64_t chunk_bytes);

/// XXH3, 128 bits, in hexadecimal.
std::string hash_of(std::string_view text);

}  // namespace temper::data
