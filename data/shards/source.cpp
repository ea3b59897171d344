#include "data/shards/source.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "data/shards/bad_rows.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

constexpr const char* kLayout = "temper token shards 4";

// The first row that can be read tells the format.
Row first_row(const std::vector<fs::path>& files, const std::string& path) {
  std::optional<BadRow> first_error;
  for (const fs::path& file : files) {
    const std::unique_ptr<Reader> reader = open_reader(file);
    for (int64_t attempt = 0; attempt < kListedRows; ++attempt) {
      try {
        Row row;
        if (!reader->next(row)) break;
        return row;
      } catch (const BadRow& error) {
        if (!first_error) first_error = error;
      }
    }
  }
  if (first_error) throw *first_error;
  throw UserError(path + ": holds no rows; expected at least one");
}

}  // namespace

Source open_source(const recipes::DataSource& recipe, const EncoderFactory& factory) {
  const std::vector<fs::path> files = data_files(recipe.path);
  return {
      .recipe = &recipe, .files = files, .encoder = factory(recipe, first_row(files, recipe.path))};
}

std::vector<Chunk> chunks_of(const Source& source, const InputFile& input, const fs::path& cache) {
  std::string key = std::string(kLayout) + "\n" + source.encoder.fingerprint + "\n" +
                    source.encoder.format + "\n" + input.path.extension().string() + "\n" +
                    input.hash + "\n" + std::to_string(input.chunk_bytes);
  for (const auto& [ours, theirs] : source.recipe->columns) key += "\n" + ours + "=" + theirs;
  const fs::path directory = cache / "tokens" / hash_of(key);
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < input.chunks.size(); ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "%05zu", i);
    chunks.push_back({.file = input.path,
                      .part = input.chunks[i],
                      .stem = directory / name,
                      .shard_bytes = 2 * input.chunk_bytes});
  }
  return chunks;
}

}  // namespace temper::data
