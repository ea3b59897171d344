#include "data/shards/chunk.h"

#include <chrono>
#include <utility>

#include "data/io/atomic_file.h"
#include "data/shards/input_file.h"

namespace temper::data {

namespace {

using Clock = std::chrono::steady_clock;

// With on_bad_row = error: enough is known to stop and tell, early but with more than the first
// fault.
constexpr int64_t kFirstRows = 10'000;
constexpr std::chrono::seconds kPatience{2};

}  // namespace

void refuse_bad_rows(std::vector<std::string> lines) {
  const std::string remedy = "data.on_bad_row=skip leaves bad rows out (counted and listed)";
  if (lines.size() == 1) throw UserError(lines.front() + "; " + remedy);
  lines.push_back("data.on_bad_row = \"error\": " + std::to_string(lines.size()) +
                  (lines.size() == kListedRows ? " bad rows or more" : " bad rows") +
                  ", listed above: mend them, or " + remedy);
  throw UserError(std::move(lines));
}

void tokenize_chunk(const Chunk& chunk, const SourceEncoder& encoder, recipes::OnBadRow on_bad_row,
                    const std::function<void()>& tick) {
  const std::unique_ptr<Reader> reader = open_reader(chunk.file, chunk.part);
  TokenShardWriter writer;
  ChunkRecord record;
  Clock::time_point first_bad_time = Clock::time_point::max();
  for (int64_t read = 0;; ++read) {
    tick();
    if (on_bad_row == recipes::OnBadRow::kError && record.bad_rows > 0 &&
        (record.bad_rows == kListedRows || read == kFirstRows ||
         Clock::now() - first_bad_time > kPatience)) {
      refuse_bad_rows(record.first_bad);
    }
    std::vector<std::string> wrong;
    Row row;
    try {
      if (!reader->next(row)) break;
    } catch (const BadRow& error) {
      wrong = error.lines();
    }
    if (wrong.empty()) {
      try {
        const Example example = encoder.encode(row);
        if (example.ids.empty()) throw UserError(row.where() + ": no tokens; expected text");
        writer.add(example, row.number);
      } catch (const UserError& error) {
        wrong = error.lines();
      }
    }
    if (wrong.empty()) continue;
    if (record.bad_rows++ == 0) first_bad_time = Clock::now();
    if (record.bad_rows <= kListedRows) record.first_bad.push_back(join(wrong, "; "));
  }
  if (on_bad_row == recipes::OnBadRow::kError && record.bad_rows > 0) {
    refuse_bad_rows(record.first_bad);
  }
  writer.write(chunk.shard);
  const std::filesystem::path cache = chunk.shard.parent_path().parent_path().parent_path();
  write_file_atomically(chunk.record(), dump_json({{"hash", inspect_file(chunk.shard, cache).hash},
                                                   {"rows", writer.rows()},
                                                   {"tokens", writer.tokens()},
                                                   {"bad_rows", record.bad_rows},
                                                   {"first_bad", record.first_bad}}));
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
