#include "data/loader/row_stream.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "data/loader/permutation.h"
#include "data/readers/reader.h"
#include "data/shards/bad_rows.h"
#include "parallel/seed.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kPartBytes = 1 << 20;

// A run of whole lines of a file.
struct Part {
  ByteRange range;
  int64_t lines = 0;
  bool last = true;
};

Part part_from(const fs::path& file, int64_t begin) {
  const std::unique_ptr<Bytes> bytes = open_bytes(file, {.begin = begin});
  std::vector<char> buffer(256 << 10);
  Part part{.range = {.begin = begin, .end = begin}};
  while (const size_t got = bytes->read(buffer.data(), buffer.size())) {
    const char* const end = buffer.data() + got;
    for (const char* at = buffer.data(); at < end; ++at) {
      at = static_cast<const char*>(std::memchr(at, '\n', static_cast<size_t>(end - at)));
      if (at == nullptr) break;
      ++part.lines;
      const int64_t next_line = part.range.end + (at + 1 - buffer.data());
      if (next_line - begin < kPartBytes) continue;
      part.range.end = next_line;
      part.last = false;
      return part;
    }
    part.range.end += static_cast<int64_t>(got);
  }
  return part;
}

}  // namespace

/// The rows of one source, pass after pass.
class SourceRows {
 public:
  SourceRows(const Source& source, bool shuffle, int64_t seed)
      : source_(source), shuffle_(shuffle), seed_(seed) {}

  void next(Row& row, std::string& wrong) {
    for (const int64_t pass = place_.pass;; end_part()) {
      if (place_.pass > pass + 1) break;
      if (!reader_) open_part();
      if (!next_row(*reader_, row, wrong)) continue;
      ++place_.row;
      return;
    }
    throw UserError(source_.recipe->path + ": holds no rows; expected at least one");
  }

  int64_t passes() const { return place_.pass; }

  Json position() const {
    return {place_.pass, place_.file, place_.begin, place_.first_line, place_.row};
  }

  void go_to(const Json& position) {
    place_ = {.pass = position.at(0),
              .file = position.at(1),
              .begin = position.at(2),
              .first_line = position.at(3),
              .row = position.at(4)};
    reader_.reset();
    require(place_.file < std::ssize(source_.files));
    if (place_.row == 0) return;
    open_part();
    Row row;
    std::string wrong;
    for (int64_t i = 0; i < place_.row; ++i) require(next_row(*reader_, row, wrong));
  }

 private:
  struct Place {
    int64_t pass = 0;
    int64_t file = 0;        // in the order of the pass
    int64_t begin = 0;       // of the part, bytes
    int64_t first_line = 1;  // its number
    int64_t row = 0;         // rows read of the part
  };

  void require(bool holds) const {
    if (holds) return;
    throw UserError(source_.recipe->path +
                    ": is not what it was when the checkpoint was written: the stream cannot go on "
                    "from there");
  }

  void open_part() {
    const int64_t files = std::ssize(source_.files);
    int64_t number = place_.file;
    if (shuffle_ && files > 1) {
      const std::string purpose = "files/" + source_.recipe->path;
      number = Permutation(files, parallel::seed_of(seed_, purpose, 0, place_.pass))(number);
    }
    const fs::path& file = source_.files[static_cast<size_t>(number)];
    part_ = {};
    ReaderOptions options{.range = {}, .first_line = place_.first_line};
    if (is_cut_at_lines(file)) {
      part_ = part_from(file, place_.begin);
      options.range = part_.range;
    }
    reader_ = open_reader(file, options);
  }

  void end_part() {
    reader_.reset();
    place_.row = 0;
    place_.begin = part_.last ? 0 : part_.range.end;
    place_.first_line = part_.last ? 1 : place_.first_line + part_.lines;
    if (!part_.last || ++place_.file < std::ssize(source_.files)) return;
    place_.file = 0;
    ++place_.pass;
  }

  const Source& source_;
  bool shuffle_;
  int64_t seed_;
  Place place_;
  Part part_;
  std::unique_ptr<Reader> reader_;
};

RowStream::RowStream(const std::vector<Source>& sources, bool shuffle, int64_t seed)
    : due_(sources.size()) {
  for (const Source& source : sources) {
    sources_.push_back(std::make_unique<SourceRows>(source, shuffle, seed));
    weights_.push_back(source.recipe->weight);
  }
}

RowStream::~RowStream() = default;

void RowStream::next(StreamedRow& row) {
  // Each source gains its weight, and the one that is due gives what all have gained.
  for (size_t i = 0; i < due_.size(); ++i) due_[i] += weights_[i];
  row.source = static_cast<size_t>(std::max_element(due_.begin(), due_.end()) - due_.begin());
  due_[row.source] -= std::accumulate(weights_.begin(), weights_.end(), 0.0);
  sources_[row.source]->next(row.row, row.wrong);
}

bool RowStream::passed_once() const {
  return std::all_of(sources_.begin(), sources_.end(),
                     [](const auto& source) { return source->passes() > 0; });
}

Json RowStream::position() const {
  Json places = Json::array();
  for (const auto& source : sources_) places.push_back(source->position());
  return {{"due", due_}, {"sources", places}};
}

void RowStream::go_to(const Json& position) {
  due_ = position.at("due").get<std::vector<double>>();
  const Json& places = position.at("sources");
  for (size_t i = 0; i < sources_.size(); ++i) sources_[i]->go_to(places.at(i));
}

}  // namespace temper::data
