#include "data/loader/stream_loader.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <future>
#include <utility>

#include "data/loader/permutation.h"
#include "data/loader/row_stream.h"
#include "data/loader/sequences.h"
#include "data/loader/step_order.h"
#include "data/shards/bad_rows.h"
#include "data/shards/on_threads.h"
#include "data/shards/select.h"
#include "data/shards/source.h"
#include "parallel/log.h"
#include "parallel/seed.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// A window ends with the first batch that reaches its rows or its tokens: 128 MiB of them, so that
// long rows do not fill the memory.
constexpr int64_t kWindowTokens = 32 << 20;
constexpr int64_t kFirstWindowRows = 1 << 10;
constexpr int64_t kFirstWindowTokens = 256 << 10;

struct Stopped {};

struct Window {
  int64_t first = 0;  // its first sequence, of the whole stream
  std::shared_ptr<const TokenDataset> dataset{};
  std::unique_ptr<const Sequences> sequences{};
  uint64_t key = 0;  // of their order
  PrepareReport report{};
  Json end{};  // where the stream stood after its last row

  int64_t size() const { return sequences->size(); }
  int64_t last() const { return first + size(); }
};

// Where a window begins.
struct Start {
  int64_t window;    // its number
  int64_t sequence;  // its first, of the whole stream
  Json stream;
};

int64_t doubled(int64_t first, int64_t times, int64_t limit) {
  return times < 30 ? std::min(first << times, limit) : limit;
}

}  // namespace

struct StreamLoader::State {
  std::vector<recipes::DataSource> recipes;
  PrepareOptions prepare;
  LoaderOptions options;
  int64_t window_rows;
  std::vector<Source> sources{};
  std::unique_ptr<RowStream> stream{};
  std::deque<Window> windows{};
  std::deque<Start>
      starts{};  // of the windows from the next sequence on, and of the one after the last
  std::vector<std::string> news{};  // what is to be said of the windows taken
  PrepareReport first_report{};
  int64_t first_sequences = 0;
  double mean_length = 0;
  int64_t steps_done = 0;
  std::atomic<bool> stopped = false;
  std::future<Window> made{};  // the next window; both futures wait for their thread
  int64_t prefetched_step = -1;
  std::future<StepBatches> prefetched{};

  Window make(const Start& start);
  void encode(const std::vector<StreamedRow>& batch, std::vector<TokenizedRow>& tokens,
              std::vector<std::string>& wrong) const;
  void take_window();
  StepBatches batches(int64_t step);
};

void StreamLoader::State::encode(const std::vector<StreamedRow>& batch,
                                 std::vector<TokenizedRow>& tokens,
                                 std::vector<std::string>& wrong) const {
  tokens.assign(batch.size(), {});
  wrong.assign(batch.size(), "");
  on_threads(prepare.workers, batch.size(), [&](size_t i) {
    wrong[i] = batch[i].wrong;
    if (wrong[i].empty())
      tokens[i] = encode_row(sources[batch[i].source].encoder, batch[i].row, wrong[i]);
  });
}

Window StreamLoader::State::make(const Start& start) {
  const int64_t most_rows = doubled(kFirstWindowRows, start.window, window_rows);
  const int64_t most_tokens = doubled(kFirstWindowTokens, start.window, kWindowTokens);
  const bool refuses = prepare.on_bad_row == recipes::OnBadRow::kError;
  Window window{.first = start.sequence,
                .key = parallel::seed_of(options.seed, "shuffle", 0, start.window)};
  TokenShardWriter writer;
  std::vector<TokenDataset::Piece> pieces;
  Selection selection(prepare);
  BadRows bad;
  std::vector<StreamedRow> batch;
  std::vector<TokenizedRow> tokens;
  std::vector<std::string> wrong;
  while (window.report.rows < most_rows && writer.tokens() < most_tokens) {
    if (stopped) throw Stopped();
    batch.clear();
    for (int64_t bytes = 0; bytes < kTogetherBytes && std::ssize(batch) < kTogetherRows &&
                            window.report.rows < most_rows;
         ++window.report.rows) {
      stream->next(batch.emplace_back());
      if (batch.back().wrong.empty()) bytes += text_bytes(batch.back().row.columns);
    }
    encode(batch, tokens, wrong);
    for (size_t i = 0; i < batch.size(); ++i) {
      if (!wrong[i].empty()) {
        bad.add(wrong[i]);
        if (refuses) bad.refuse_early(window.report.rows);
        continue;
      }
      const auto shard_row = static_cast<int32_t>(writer.rows());
      for (SelectedPiece& taken : selection.take(tokens[i], batch[i].row.number, batch[i].row.file,
                                                 sources[batch[i].source].encoder.rules)) {
        taken.piece.start += writer.tokens();
        taken.piece.row = shard_row;
        pieces.push_back(taken.piece);
        window.report.tokens += taken.piece.length;
        window.report.supervised += taken.supervised;
      }
      writer.add(tokens[i], batch[i].row.number);
    }
  }
  if (refuses) bad.refuse();
  window.report.bad_rows = bad.count();
  window.report.first_bad = bad.first();
  selection.finish(window.report);
  if (pieces.empty() && start.sequence == 0 && stream->passed_once()) {
    throw UserError(
        recipes.front().path + ": no row is left to train on" +
        (window.report.first_bad.empty() ? "" : ": " + window.report.first_bad.front()));
  }
  window.end = stream->position();
  window.dataset = std::make_shared<const TokenDataset>(
      std::vector{std::make_shared<const TokenShard>(std::move(writer))}, std::move(pieces),
      prepare.max_length);
  window.sequences = std::make_unique<const Sequences>(window.dataset, options);
  return window;
}

// And begins to make the next one.
void StreamLoader::State::take_window() {
  Window window = made.valid() ? made.get() : make(starts.back());
  const Start next{starts.back().window + 1, window.last(), std::move(window.end)};
  if (next.window > 1 && (window.report.bad_rows > 0 || window.report.long_rows > 0)) {
    const std::string set = "data.train, window " + std::to_string(next.window);
    for (std::string& line : statements_of(set, window.report, prepare.max_length))
      news.push_back(std::move(line));
  }
  windows.push_back(std::move(window));
  starts.push_back(next);
  made = std::async(std::launch::async, [this, next] { return make(next); });
}

StepBatches StreamLoader::State::batches(int64_t step) {
  const int64_t first = step * options.global;
  while (starts.back().sequence < first + options.global) take_window();
  while (windows.front().last() <= first) windows.pop_front();
  TEMPER_CHECK(windows.front().first <= first, "steps come in order");
  std::vector<SequencePlace> places;
  for (auto window = windows.begin(); std::ssize(places) < options.global;) {
    const int64_t number = first + std::ssize(places) - window->first;
    if (number >= window->size()) {
      ++window;
      continue;
    }
    const int64_t taken =
        options.shuffle ? Permutation(window->size(), window->key)(number) : number;
    places.push_back({window->sequences.get(), taken});
  }
  StepBatches result;
  for (const RankShare& share : shares_of(options, options.global)) {
    result.micro_batches.push_back(batch_of(std::span(places).subspan(share.begin, share.count)));
    result.micro_batches.back().number = share.number;
  }
  return result;
}

StreamLoader::StreamLoader(std::vector<recipes::DataSource> recipes, const EncoderFactory& factory,
                           const PrepareOptions& prepare, const LoaderOptions& options,
                           int64_t window_rows)
    : state_(new State{.recipes = std::move(recipes),
                       .prepare = prepare,
                       .options = options,
                       .window_rows = window_rows}) {
  State& s = *state_;
  for (const recipes::DataSource& recipe : s.recipes) {
    s.sources.push_back(open_source(recipe, factory));
    const std::string& statement = s.sources.back().encoder.statement;
    if (!statement.empty()) s.first_report.statements.push_back(statement);
    s.first_report.files += std::ssize(s.sources.back().files);
  }
  s.stream = std::make_unique<RowStream>(s.sources, options.shuffle, options.seed);
  s.starts.push_back({0, 0, s.stream->position()});
  do s.take_window();
  while (s.starts.back().sequence == 0);
  const Window& window = s.windows.back();
  std::vector<std::string> statements = std::move(s.first_report.statements);
  const int64_t files = s.first_report.files;
  s.first_report = window.report;
  s.first_report.statements = std::move(statements);
  s.first_report.files = files;
  s.first_sequences = window.size();
  s.mean_length = window.dataset->mean_length();
}

StreamLoader::~StreamLoader() { state_->stopped = true; }

StepBatches StreamLoader::step(int64_t step) {
  State& s = *state_;
  if (s.prefetched.valid() && s.prefetched_step != step) s.prefetched.get();
  StepBatches result = s.prefetched.valid() ? s.prefetched.get() : s.batches(step);
  for (const std::string& line : std::exchange(s.news, {})) parallel::say(line);
  s.steps_done = step + 1;
  s.prefetched_step = step + 1;
  s.prefetched = std::async(std::launch::async, [&s, step] { return s.batches(step + 1); });
  return result;
}

Json StreamLoader::state() {
  State& s = *state_;
  if (s.prefetched.valid()) s.prefetched.wait();
  const int64_t next = s.steps_done * s.options.global;
  while (s.starts.size() > 1 && s.starts[1].sequence <= next) s.starts.pop_front();
  const Start& start = s.starts.front();
  return {{"window", start.window}, {"sequence", start.sequence}, {"stream", start.stream}};
}

void StreamLoader::restore(const Json& state) {
  State& s = *state_;
  if (s.made.valid()) s.made.wait();
  s.made = {};
  s.windows.clear();
  s.news.clear();
  s.starts = {{state.at("window"), state.at("sequence"), state.at("stream")}};
  s.stream->go_to(s.starts.front().stream);
}

const PrepareReport& StreamLoader::first_rows() const { return state_->first_report; }

int64_t StreamLoader::first_sequences() const { return state_->first_sequences; }

double StreamLoader::mean_length() const { return state_->mean_length; }

}  // namespace temper::data
