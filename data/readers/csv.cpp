#include <algorithm>
#include <string>
#include <utility>

#include "data/readers/reader.h"

namespace temper::data {

namespace {

// RFC 4180: the first record names the columns; a quoted field may hold commas, line ends and
// doubled quotes. Every value is a string.
class Csv : public Reader {
 public:
  explicit Csv(const std::filesystem::path& file) : file_(file.string()), lines_(open_bytes(file)) {
    if (!read_record()) return;
    columns_ = fields_;
    for (size_t i = 0; i < columns_.size(); ++i) {
      require_text(columns_[i], file_ + ":1");
      if (columns_[i].empty()) {
        throw UserError(file_ + ":1: column " + std::to_string(i + 1) +
                        " has no name; expected a header row of column names");
      }
      if (std::find(columns_.begin(), columns_.begin() + static_cast<std::ptrdiff_t>(i),
                    columns_[i]) != columns_.begin() + static_cast<std::ptrdiff_t>(i)) {
        throw UserError(file_ + ":1: column '" + columns_[i] +
                        "' stands twice in the header; expected different names");
      }
    }
  }

  bool next(Row& row) override {
    row.file = file_;
    if (!read_record()) return false;
    row.number = record_line_;
    const std::string where = row.where();
    if (fields_.size() != columns_.size()) {
      throw BadRow(where + ": has " + std::to_string(fields_.size()) + " fields; expected " +
                   std::to_string(columns_.size()) +
                   " as in the header (a field with a comma is quoted)");
    }
    row.columns = Json::object();
    for (size_t i = 0; i < columns_.size(); ++i) {
      require_text(fields_[i], where + ": column '" + columns_[i] + "'");
      row.columns.get_ref<Json::object_t&>().emplace_back(columns_[i], std::move(fields_[i]));
    }
    return true;
  }

 private:
  bool read_record();

  std::string file_;
  Lines lines_;
  std::vector<std::string> columns_;
  std::vector<std::string> fields_;
  int64_t record_line_ = 0;  // where the record starts
};

// Fills fields_ with the next record that is not a blank line.
bool Csv::read_record() {
  std::string_view line;
  do {
    if (!lines_.next(line)) return false;
  } while (line.empty());
  record_line_ = lines_.number();
  fields_.assign(1, "");
  bool quoted = false;
  for (size_t i = 0;; ++i) {
    if (i == line.size()) {
      if (!quoted) return true;
      fields_.back() += lines_.ended_with_crlf() ? "\r\n" : "\n";
      if (!lines_.next(line)) {
        throw UserError(file_ + ":" + std::to_string(record_line_) +
                        ": a quoted field is never closed; expected a closing \"");
      }
      i = static_cast<size_t>(-1);
      continue;
    }
    const char c = line[i];
    if (quoted) {
      if (c != '"') {
        fields_.back() += c;
      } else if (i + 1 < line.size() && line[i + 1] == '"') {
        fields_.back() += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"' && fields_.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      fields_.emplace_back();
    } else {
      fields_.back() += c;
    }
  }
}

}  // namespace

std::unique_ptr<Reader> open_csv(const std::filesystem::path& file, const ReaderOptions&) {
  return std::make_unique<Csv>(file);
}

}  // namespace temper::data
