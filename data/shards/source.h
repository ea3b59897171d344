#pragma once

#include <filesystem>
#include <vector>

#include "data/shards/chunk.h"
#include "data/shards/input_file.h"
#include "data/shards/prepare.h"

namespace temper::data {

/// One [[data.train]] or [[data.eval]] entry: its files in order, and what encodes their rows.
struct Source {
  const recipes::DataSource* recipe;
  std::vector<std::filesystem::path> files;
  SourceEncoder encoder;
};

/// Reads no further than the first row that is not bad. Throws UserError: files that are missing,
/// without rows, or whose columns fit no format.
Source open_source(const recipes::DataSource& recipe, const EncoderFactory& factory);

/// The chunks of one file and the shards they become, in order.
std::vector<Chunk> chunks_of(const Source& source, const InputFile& input,
                             const std::filesystem::path& cache);

}  // namespace temper::data
