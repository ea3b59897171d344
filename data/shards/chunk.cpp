#include "data/shards/chunk.h"

#include "data/io/atomic_file.h"
#include "data/shards/bad_rows.h"
#include "data/shards/input_file.h"
#include "data/shards/on_threads.h"
#include "data/shards/token_shard.h"

namespace temper::data {

namespace {

struct ReadRow {
  Row row;
  std::string wrong;  // why the row is bad, or empty
  TokenizedRow tokens;
};

// At most `most`. False at the end of the file.
bool read_together(Reader& reader, int64_t most, std::vector<ReadRow>& rows) {
  rows.clear();
  for (int64_t bytes = 0; bytes < kTogetherBytes && std::ssize(rows) < most;) {
    ReadRow& read = rows.emplace_back();
    if (!next_row(reader, read.row, read.wrong)) {
      rows.pop_back();
      break;
    }
    if (read.wrong.empty()) bytes += text_bytes(read.row.columns);
  }
  return !rows.empty();
}

}  // namespace

void tokenize_chunk(const Chunk& chunk, const SourceEncoder& encoder, recipes::OnBadRow on_bad_row,
                    int64_t threads, const std::function<void()>& tick) {
  const bool refuses = on_bad_row == recipes::OnBadRow::kError;
  const std::unique_ptr<Reader> reader = open_reader(chunk.file, chunk.part);
  const std::filesystem::path cache = chunk.stem.parent_path().parent_path().parent_path();
  ChunkRecord record;
  TokenShardWriter writer(chunk.shard_bytes);
  const auto end_shard = [&] {
    const std::filesystem::path shard = chunk.shard(record.hashes.size());
    writer.write(shard);
    record.hashes.push_back(inspect_file(shard, cache).hash);
    record.rows += writer.rows();
    record.tokens += writer.tokens();
    writer = TokenShardWriter(chunk.shard_bytes);
  };
  BadRows bad;
  int64_t read = 0;
  std::vector<ReadRow> rows;
  const int64_t together = threads > 1 ? kTogetherRows : 1;
  for (tick(); read_together(*reader, together, rows); tick()) {
    on_threads(threads, rows.size(), [&](size_t i) {
      if (rows[i].wrong.empty()) rows[i].tokens = encode_row(encoder, rows[i].row, rows[i].wrong);
    });
    for (const ReadRow& row : rows) {
      if (row.wrong.empty()) {
        writer.add(row.tokens, row.row.number);
        record.cut_rows += row.tokens.cut > 0;
        record.tokens_cut += row.tokens.cut;
        if (writer.bytes() >= chunk.shard_bytes) end_shard();
      } else {
        bad.add(row.wrong);
      }
      if (refuses) bad.refuse_early(++read);
    }
  }
  if (refuses) bad.refuse();
  if (writer.rows() > 0 || record.hashes.empty()) end_shard();
  write_file_atomically(chunk.record(), dump_json({{"hashes", record.hashes},
                                                   {"rows", record.rows},
                                                   {"tokens", record.tokens},
                                                   {"cut_rows", record.cut_rows},
                                                   {"tokens_cut", record.tokens_cut},
                                                   {"bad_rows", bad.count()},
                                                   {"first_bad", bad.first()}}));
}

std::optional<ChunkRecord> finished(const Chunk& chunk, const std::filesystem::path& cache,
                                    std::vector<std::string>& statements) {
  if (!std::filesystem::exists(chunk.record())) return std::nullopt;
  std::filesystem::path damaged = chunk.record();
  try {
    const Json json = read_json(chunk.record());
    ChunkRecord record{.hashes = json.at("hashes").get<std::vector<std::string>>(),
                       .rows = json.at("rows").get<int64_t>(),
                       .tokens = json.at("tokens").get<int64_t>(),
                       .cut_rows = json.at("cut_rows").get<int64_t>(),
                       .tokens_cut = json.at("tokens_cut").get<int64_t>(),
                       .bad_rows = json.at("bad_rows").get<int64_t>(),
                       .first_bad = json.at("first_bad").get<std::vector<std::string>>()};
    bool whole = true;
    for (size_t i = 0; i < record.hashes.size() && whole; ++i) {
      damaged = chunk.shard(i);
      whole = inspect_file(damaged, cache).hash == record.hashes[i];
    }
    if (whole) return record;
  } catch (const UserError&) {  // missing or unreadable: as damaged
  } catch (const Json::exception&) {
  }
  statements.push_back(damaged.string() +
                       ": damaged (its bytes are not those that were written): made again");
  std::filesystem::remove(chunk.record());
  return std::nullopt;
}

}  // namespace temper::data
