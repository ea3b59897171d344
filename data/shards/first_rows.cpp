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

bool is_cached(const Source& source, const PrepareOptions& options) {
  for (const fs::path& file : source.files) {
    const std::optional<InputFile> input =
        remembered_file(file, options.cache, options.chunk_bytes);
    if (!input) return false;
    const std::vector<Chunk> chunks = chunks_of(source, *input, options.cache);
    if (!std::all_of(chunks.begin(), chunks.end(),
                     [](const Chunk& chunk) { return fs::exists(chunk.record()); })) {
      return false;
    }
  }
  return true;
}

// What is looked at depends on the rows alone, so that all ranks refuse or none does. `read`: how
// many rows came before.
void walk(const Source& source,
          const std::function<void(const Row&, const TokenizedRow&, const std::string& wrong,
                                   const fs::path&, int64_t read)>& each) {
  int64_t read = 0, bytes = 0;
  for (const fs::path& file : source.files) {
    if (read >= kFirstRows || bytes >= kFirstBytes) break;
    const std::unique_ptr<Reader> reader = open_reader(file);
    Row row;
    std::string wrong;
    for (; read < kFirstRows && bytes < kFirstBytes && next_row(*reader, row, wrong); ++read) {
      TokenizedRow tokens;
      if (wrong.empty()) {
        bytes += text_bytes(row.columns);
        if (bytes > kFirstBytes) break;
        tokens = encode_row(source.encoder, row, wrong);
      }
      each(row, tokens, wrong, file, read);
    }
  }
}

void check(const Source& source, const PrepareOptions& options) {
  BadRows bad;
  Selection selection(options);
  walk(source, [&](const Row& row, const TokenizedRow& tokens, const std::string& wrong,
                   const fs::path& file, int64_t read) {
    if (wrong.empty()) {
      selection.look_at(tokens, row.number, file, source.encoder.rules);
    } else {
      bad.add(wrong);
    }
    bad.refuse_early(read);
  });
  bad.refuse();
  selection.refuse();
}

}  // namespace

void look_at_first_rows(const recipes::DataSource& recipe, const EncoderFactory& factory,
                        PrepareOptions options, const LookedAt& looked_at, PrepareReport& report) {
  options.on_bad_row = recipes::OnBadRow::kSkip;
  if (options.on_long_row == recipes::OnLongRow::kError) {
    options.on_long_row = recipes::OnLongRow::kTruncate;  // counted all the same
  }
  const Source source = open_source(recipe, factory);
  BadRows bad;
  Selection selection(options);
  report = {};
  report.files = std::ssize(source.files);
  report.statements = {source.encoder.statement};
  walk(source, [&](const Row& row, const TokenizedRow& tokens, const std::string& wrong,
                   const fs::path& file, int64_t) {
    ++report.rows;
    std::vector<SelectedPiece> pieces;
    if (wrong.empty()) pieces = selection.take(tokens, row.number, file, source.encoder.rules);
    if (!wrong.empty()) bad.add(wrong);
    for (const SelectedPiece& taken : pieces) {
      report.tokens += taken.piece.length;
      report.supervised += taken.supervised;
    }
    looked_at(row, tokens, wrong, pieces);
  });
  report.bad_rows = bad.count();
  report.first_bad = bad.first();
  selection.finish(report);
}

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
    if (!is_cached(source, options)) check(source, options);
  }
}

}  // namespace temper::data
