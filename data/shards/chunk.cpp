#include "data/shards/chunk.h"

#include "data/io/atomic_file.h"
#include "data/shards/bad_rows.h"
#include "data/shards/input_file.h"
#include "data/shards/token_shard.h"

namespace temper::data {

void tokenize_chunk(const Chunk& chunk, const SourceEncoder& encoder, recipes::OnBadRow on_bad_row,
                    const std::function<void()>& tick) {
  const bool refuses = on_bad_row == recipes::OnBadRow::kError;
  const std::unique_ptr<Reader> reader = open_reader(chunk.file, chunk.part);
  TokenShardWriter writer;
  BadRows bad;
  Row row;
  std::string wrong;
  for (int64_t read = 0;; ++read) {
    tick();
    if (refuses) bad.refuse_early(read);
    if (!next_row(*reader, row, wrong)) break;
    if (wrong.empty()) {
      const TokenizedRow tokenized = encode_row(encoder, row, wrong);
      if (wrong.empty()) writer.add(tokenized, row.number);
    }
    if (!wrong.empty()) bad.add(wrong);
  }
  if (refuses) bad.refuse();
  writer.write(chunk.shard);
  const std::filesystem::path cache = chunk.shard.parent_path().parent_path().parent_path();
  write_file_atomically(chunk.record(), dump_json({{"hash", inspect_file(chunk.shard, cache).hash},
                                                   {"rows", writer.rows()},
                                                   {"tokens", writer.tokens()},
                                                   {"bad_rows", bad.count()},
                                                   {"first_bad", bad.first()}}));
}

std::optional<ChunkRecord> finished(const Chunk& chunk, const std::filesystem::path& cache,
                                    std::vector<std::string>& statements) {
  if (!std::filesystem::exists(chunk.record())) return std::nullopt;
  try {
    const Json json = read_json(chunk.record());
    ChunkRecord record{.hash = json.at("hash").get<std::string>(),
                       .rows = json.at("rows").get<int64_t>(),
                       .tokens = json.at("tokens").get<int64_t>(),
                       .bad_rows = json.at("bad_rows").get<int64_t>(),
                       .first_bad = json.at("first_bad").get<std::vector<std::string>>()};
    if (inspect_file(chunk.shard, cache).hash == record.hash) return record;
  } catch (const UserError&) {  // missing or unreadable: as damaged
  } catch (const Json::exception&) {
  }
  statements.push_back(chunk.shard.string() +
                       ": damaged (its bytes are not those that were written): made again");
  std::filesystem::remove(chunk.record());
  return std::nullopt;
}

}  // namespace temper::data
