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
#include "data/io/claim.h"
#include "data/shards/bad_rows.h"
#include "data/shards/chunk.h"
#include "data/shards/select.h"
#include "data/shards/source.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

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

// All chunks of a source in file order, with the directories for their shards. Reads whole files.
std::vector<Chunk> chunks_of_all(const Source& source, const PrepareOptions& options) {
  std::vector<Chunk> chunks;
  for (const fs::path& file : source.files) {
    for (Chunk& chunk :
         chunks_of(source, inspect_file(file, options.cache, options.chunk_bytes), options.cache)) {
      fs::create_directories(chunk.stem.parent_path());
      chunks.push_back(std::move(chunk));
    }
  }
  return chunks;
}

// A chunk that is wrong ends the work of all ranks: its lines are left beside it for those that are
// still busy.
fs::path refusal(const Chunk& chunk) { return chunk.stem.parent_path() / "refused.json"; }

void stop_if_refused(const std::vector<Chunk>& chunks) {
  fs::path last;
  for (const Chunk& chunk : chunks) {
    const fs::path path = refusal(chunk);
    if (path == last) continue;
    last = path;
    if (fs::exists(path)) throw UserError(read_json(path).get<std::vector<std::string>>());
  }
}

/// All chunks of a source, by this rank's threads and all other ranks together.
class Work {
 public:
  Work(const SourceEncoder& encoder, const std::vector<Chunk>& chunks,
       const PrepareOptions& options)
      : encoder_(encoder), chunks_(chunks), options_(options) {}

  /// Returns the records in order; `tokenized` when some were not in the cache.
  std::vector<ChunkRecord> run(std::vector<std::string>& statements, bool& tokenized) {
    records_.resize(chunks_.size());
    collect(statements);
    if (all_finished()) return take();
    tokenized = true;
    for (const Chunk& chunk : chunks_) fs::remove(refusal(chunk));  // of an earlier run
    // Where there are fewer chunks than threads, several share in one.
    const int64_t left = std::count(records_.begin(), records_.end(), std::nullopt);
    threads_a_chunk_ = std::max<int64_t>(options_.workers / left, 1);
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < options_.workers; ++i) threads.emplace_back([&] { work(); });
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    for (auto pause = std::chrono::milliseconds(20);; pause = std::min(2 * pause, kLongestPause)) {
      collect(statements);
      if (all_finished()) return take();
      // Others hold the rest. Should one of them die, its claims are free again.
      std::this_thread::sleep_for(pause);
      stop_if_refused(chunks_);
      work();
      if (failure_) std::rethrow_exception(failure_);
    }
  }

 private:
  static constexpr std::chrono::milliseconds kLongestPause{500};

  void collect(std::vector<std::string>& statements) {
    for (size_t i = 0; i < records_.size(); ++i) {
      if (!records_[i]) records_[i] = finished(chunks_[i], options_.cache, statements);
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
    const size_t count = chunks_.size();
    const size_t start =
        count * static_cast<size_t>(options_.rank) / static_cast<size_t>(options_.ranks);
    try {
      for (size_t i = 0; i < count && !stopped_; ++i) tokenize(chunks_[(start + i) % count]);
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
      stop_if_refused(chunks_);
    };
    try {
      tokenize_chunk(chunk, encoder_, options_.on_bad_row, threads_a_chunk_, tick);
    } catch (const UserError& error) {
      if (options_.ranks > 1) write_file_atomically(refusal(chunk), dump_json(error.lines()));
      throw;
    }
  }

  const SourceEncoder& encoder_;
  const std::vector<Chunk>& chunks_;
  const PrepareOptions& options_;
  std::vector<std::optional<ChunkRecord>> records_;
  int64_t threads_a_chunk_ = 1;
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

// Pairs whose documents are rows of their own, in the order in which TRL unpairs them: of each
// thousand pairs first what was chosen, then what was rejected.
void order_unpaired(std::vector<SelectedPiece>& pieces) {
  constexpr int64_t kTogether = 1000;
  const auto place = [](const SelectedPiece& selected) {
    return std::pair(selected.row / kTogether, selected.piece.document);
  };
  std::stable_sort(
      pieces.begin(), pieces.end(),
      [&](const SelectedPiece& a, const SelectedPiece& b) { return place(a) < place(b); });
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
  const auto keep = [&](const std::vector<SelectedPiece>& selected) {
    for (const SelectedPiece& one : selected) {
      pieces.push_back(one.piece);
      report->tokens += one.piece.length;
      report->supervised += one.supervised;
    }
  };
  for (const recipes::DataSource& recipe : sources) {
    const Source source = open_source(recipe, factory);
    const std::vector<Chunk> chunks = chunks_of_all(source, options);
    if (!source.encoder.statement.empty()) report->statements.push_back(source.encoder.statement);
    report->files += static_cast<int64_t>(source.files.size());
    const std::vector<ChunkRecord> records =
        Work(source.encoder, chunks, options).run(report->statements, tokenized);
    // A weight is a share among several sources: alone it means nothing.
    const bool weighted = sources.size() > 1 && recipe.weight != 1.0;
    const bool together = weighted || source.encoder.rules.unpaired;
    std::vector<SelectedPiece> taken;  // of the whole source, where they are not kept as they come
    int64_t rows_before = 0;
    for (size_t i = 0; i < records.size(); ++i) {
      report->rows += records[i].rows + records[i].bad_rows;
      report->bad_rows += records[i].bad_rows;
      selection.add_cut(records[i].cut_rows, records[i].tokens_cut);
      for (const std::string& line : records[i].first_bad) {
        if (static_cast<int64_t>(report->first_bad.size()) < kListedRows)
          report->first_bad.push_back(line);
      }
      for (size_t part = 0; part < records[i].hashes.size(); ++part) {
        shards.push_back(std::make_shared<const TokenShard>(chunks[i].shard(part)));
        const std::vector<SelectedPiece> selected =
            selection.take(*shards.back(), static_cast<int32_t>(shards.size() - 1), rows_before,
                           chunks[i].file, source.encoder.rules);
        if (together) {
          taken.insert(taken.end(), selected.begin(), selected.end());
        } else {
          keep(selected);
        }
        rows_before += shards.back()->rows();
      }
    }
    if (source.encoder.rules.unpaired) order_unpaired(taken);
    if (weighted) {
      const size_t before = taken.size();
      taken = weigh(taken, recipe.weight);
      report->statements.push_back(recipe.path + ": weight " + std::to_string(recipe.weight) +
                                   ": " + std::to_string(taken.size()) + " examples a pass from " +
                                   std::to_string(before));
    }
    keep(taken);
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
  return std::make_shared<const TokenDataset>(std::move(shards), std::move(pieces),
                                              options.max_length);
}

}  // namespace temper::data
