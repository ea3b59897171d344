#include "data/shards/first_rows.h"

#include <algorithm>
#include <memory>
#include <string>

#include "data/shards/bad_rows.h"
#include "data/shards/select.h"
#include "data/shards/source.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kFirstBytes = 64 << 20;  // of text: three seconds of tokenizing

int64_t text_bytes(const Json& value) {
  if (value.is_string()) return static_cast<int64_t>(value.get_ref<const std::string&>().size());
  int64_t bytes = 0;
  for (const Json& part : value) {
    if (part.is_string() || part.is_structured()) bytes += text_bytes(part);
  }
  return bytes;
}

bool is_cached(const Source& source, const fs::path& cache) {
  for (const fs::path& file : source.files) {
    const std::optional<InputFile> input = remembered_file(file, cache);
    if (!input) return false;
    const std::vector<Chunk> chunks = chunks_of(source, *input, cache);
    if (!std::all_of(chunks.begin(), chunks.end(),
                     [](const Chunk& chunk) { return fs::exists(chunk.record()); })) {
      return false;
    }
  }
  return true;
}

// What is looked at depends on the rows alone, so that all ranks refuse or none does.
void check(const Source& source, const PrepareOptions& options) {
  BadRows bad;
  Selection selection(options);
  int64_t read = 0, bytes = 0;
  for (const fs::path& file : source.files) {
    if (read >= kFirstRows || bytes >= kFirstBytes) break;
    const std::unique_ptr<Reader> reader = open_reader(file);
    Row row;
    std::string wrong;
    for (; read < kFirstRows && bytes < kFirstBytes && next_row(*reader, row, wrong); ++read) {
      if (wrong.empty()) {
        bytes += text_bytes(row.columns);
        if (bytes > kFirstBytes) break;
        const TokenizedRow tokenized = encode_row(source.encoder, row, wrong);
        if (wrong.empty()) selection.look_at(tokenized, row.number, file, source.encoder.rules);
      }
      if (!wrong.empty()) bad.add(wrong);
      bad.refuse_early(read);
    }
  }
  bad.refuse();
  selection.refuse();
}

}  // namespace

void check_first_rows(const std::vector<recipes::DataSource>& sources,
                      const EncoderFactory& factory, const PrepareOptions& options) {
  if (options.on_bad_row != recipes::OnBadRow::kError) return;
  int64_t bytes = 0;
  for (const recipes::DataSource& recipe : sources) {
    for (const fs::path& file : data_files(recipe.path)) {
      bytes += static_cast<int64_t>(fs::file_size(file));
    }
  }
  if (bytes <= kChunkBytes) return;
  for (const recipes::DataSource& recipe : sources) {
    const Source source = open_source(recipe, factory);
    if (!is_cached(source, options.cache)) check(source, options);
  }
}

}  // namespace temper::data
