#include "data/shards/prepare.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <unistd.h>

#include "data/io/atomic_file.h"
#include "data/readers/reader.h"
#include "data/shards/chunk.h"
#include "data/shards/claim.h"
#include "data/shards/input_file.h"
#include "data/shards/select.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kLayout = "temper token shards 1";

// One [[data.train]] entry, its encoder and its chunks in file order.
struct Source {
  const recipes::DataSource* recipe;
  SourceEncoder encoder;
  int64_t files = 0;
  std::vector<Chunk> chunks;
};

void require_cache(const fs::path& cache) {
  std::error_code error;
  fs::create_directories(cache / "tokens", error);
  fs::create_directories(cache / "files", error);
  if (error || ::access(cache.c_str(), W_OK) != 0) {
    throw UserError("data.cache = \"" + cache.string() +
                    "\": cannot be written: " + (error ? error.message() : std::strerror(errno)) +
                    "; expected a directory that all ranks may write");
  }
}

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

Source open_source(const recipes::DataSource& recipe, const EncoderFactory& factory,
                   const PrepareOptions& options) {
  const std::vector<fs::path> files = data_files(recipe.path);
  Source source{.recipe = &recipe,
                .encoder = factory(recipe, first_row(files, recipe.path)),
                .files = static_cast<int64_t>(files.size()),
                .chunks = {}};
  for (const fs::path& file : files) {
    const InputFile input = inspect_file(file, options.cache);
    std::string key = std::string(kLayout) + "\n" + source.encoder.fingerprint + "\n" +
                      source.encoder.format + "\n" + file.extension().string() + "\n" + input.hash;
    for (const auto& [ours, theirs] : recipe.columns) key += "\n" + ours + "=" + theirs;
    const fs::path directory = options.cache / "tokens" / hash_of(key);
    fs::create_directories(directory);
    for (size_t i = 0; i < input.chunks.size(); ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "%05zu.h5", i);
      source.chunks.push_back({.file = file, .part = input.chunks[i], .shard = directory / name});
    }
  }
  return source;
}

// A chunk that is wrong ends the work of all ranks: its lines are left beside it for those that are
// still busy.
fs::path refusal(const Chunk& chunk) { return chunk.shard.parent_path() / "refused.json"; }

void stop_if_refused(const Source& source) {
  fs::path last;
  for (const Chunk& chunk : source.chunks) {
    const fs::path path = refusal(chunk);
    if (path == last) continue;
    last = path;
    if (fs::exists(path)) throw UserError(read_json(path).get<std::vector<std::string>>());
  }
}

/// All chunks of a source, by this rank's threads and all other ranks together.
class Work {
 public:
  Work(const Source& source, const PrepareOptions& options) : source_(source), options_(options) {}

  /// Returns the records in order; `tokenized` when some were not in the cache.
  std::vector<ChunkRecord> run(std::vector<std::string>& statements, bool& tokenized) {
    records_.resize(source_.chunks.size());
    collect(statements);
    if (all_finished()) return take();
    tokenized = true;
    for (const Chunk& chunk : source_.chunks) fs::remove(refusal(chunk));  // of an earlier run
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < options_.workers; ++i) threads.emplace_back([&] { work(); });
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    for (auto pause = std::chrono::milliseconds(20);; pause = std::min(2 * pause, kLongestPause)) {
      collect(statements);
      if (all_finished()) return take();
      // Others hold the rest. Should one of them die, its claims are free again.
      std::this_thread::sleep_for(pause);
      stop_if_refused(source_);
      work();
      if (failure_) std::rethrow_exception(failure_);
    }
  }

 private:
  static constexpr std::chrono::milliseconds kLongestPause{500};

  void collect(std::vector<std::string>& statements) {
    for (size_t i = 0; i < records_.size(); ++i) {
      if (!records_[i]) records_[i] = finished(source_.chunks[i], options_.cache, statements);
    }
  }

  bool all_finished() const {
    return std::all_of(records_.begin(), records_.end(),
                       [](const auto& r) { return r.has_value(); });
  }

  std::vector<ChunkRecord> take() {
    std::vector<ChunkRecord> result;
    for (std::optional<ChunkRecord>& record : records_) result.push_back(std::move(*record));
    return result;
  }

  // Each rank begins at its own place, so that ranks seldom want the same chunk.
  void work() noexcept {
    const size_t count = source_.chunks.size();
    const size_t start =
        count * static_cast<size_t>(options_.rank) / static_cast<size_t>(options_.ranks);
    try {
      for (size_t i = 0; i < count && !stopped_; ++i) tokenize(source_.chunks[(start + i) % count]);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stopped_ = true;
    }
  }

  void tokenize(const Chunk& chunk) {
    if (fs::exists(chunk.record())) return;
    const std::optional<Claim> claim = Claim::take(chunk.lock());
    if (!claim || fs::exists(chunk.record())) return;
    Clock::time_point last = Clock::now();
    const auto tick = [&] {
      if (Clock::now() - last < std::chrono::seconds(1)) return;
      last = Clock::now();
      claim->refresh();
      stop_if_refused(source_);
    };
    try {
      tokenize_chunk(chunk, source_.encoder, options_.on_bad_row, tick);
    } catch (const UserError& error) {
      if (options_.ranks > 1) write_file_atomically(refusal(chunk), dump_json(error.lines()));
      throw;
    }
  }

  const Source& source_;
  const PrepareOptions& options_;
  std::vector<std::optional<ChunkRecord>> records_;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;
  std::exception_ptr failure_;
};

// A weight is how often a source's examples come in a pass: 2 takes each twice, 0.5 every other
// one.
std::vector<SelectedPiece> weigh(const std::vector<SelectedPiece>& pieces, double weight) {
  std::vector<SelectedPiece> result;
  const double whole = std::floor(weight), part = weight - whole;
  for (int64_t pass = 0; pass < static_cast<int64_t>(whole); ++pass) {
    result.insert(result.end(), pieces.begin(), pieces.end());
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    const double before = std::floor(static_cast<double>(i) * part);
    if (std::floor(static_cast<double>(i + 1) * part) > before) result.push_back(pieces[i]);
  }
  return result;
}

}  // namespace

std::shared_ptr<const TokenDataset> prepare(const std::vector<recipes::DataSource>& sources,
                                            const EncoderFactory& factory,
                                            const PrepareOptions& options, PrepareReport* report) {
  const Clock::time_point start = Clock::now();
  *report = {};
  require_cache(options.cache);
  bool tokenized = false;
  std::vector<std::shared_ptr<const TokenShard>> shards;
  std::vector<TokenDataset::Piece> pieces;
  Selection selection(options);
  for (const recipes::DataSource& recipe : sources) {
    const Source source = open_source(recipe, factory, options);
    if (!source.encoder.statement.empty()) report->statements.push_back(source.encoder.statement);
    report->files += source.files;
    const std::vector<ChunkRecord> records =
        Work(source, options).run(report->statements, tokenized);
    std::vector<SelectedPiece> taken;
    for (size_t i = 0; i < records.size(); ++i) {
      report->rows += records[i].rows + records[i].bad_rows;
      report->bad_rows += records[i].bad_rows;
      for (const std::string& line : records[i].first_bad) {
        if (static_cast<int64_t>(report->first_bad.size()) < kListedRows)
          report->first_bad.push_back(line);
      }
      shards.push_back(std::make_shared<const TokenShard>(source.chunks[i].shard));
      const std::vector<SelectedPiece> part =
          selection.take(*shards.back(), static_cast<int32_t>(shards.size() - 1),
                         source.chunks[i].file, source.encoder.format);
      taken.insert(taken.end(), part.begin(), part.end());
    }
    // A weight is a share among several sources: alone it means nothing.
    if (sources.size() > 1 && recipe.weight != 1.0) {
      const size_t before = taken.size();
      taken = weigh(taken, recipe.weight);
      report->statements.push_back(recipe.path + ": weight " + std::to_string(recipe.weight) +
                                   ": " + std::to_string(taken.size()) + " examples a pass from " +
                                   std::to_string(before));
    }
    for (const SelectedPiece& selected : taken) {
      pieces.push_back(selected.piece);
      report->tokens += selected.piece.length;
      report->supervised += selected.supervised;
    }
  }
  // Rows that an earlier run skipped, if this one wants them refused.
  if (options.on_bad_row == recipes::OnBadRow::kError && report->bad_rows > 0) {
    refuse_bad_rows(report->first_bad);
  }
  selection.finish(*report);
  if (pieces.empty()) {
    throw UserError((sources.empty() ? std::string("data") : sources.front().path) +
                    ": no row is left to train on or to evaluate" +
                    (report->first_bad.empty() ? "" : ": " + report->first_bad.front()));
  }
  report->from_cache = !tokenized;
  report->seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return std::make_shared<const TokenDataset>(std::move(shards), std::move(pieces));
}

}  // namespace temper::data
