#include <string>
#include <utility>

#include "data/readers/reader.h"

namespace temper::data {

namespace {

class JsonArray : public Reader {
 public:
  explicit JsonArray(const std::filesystem::path& file) : file_(file.string()) {
    std::string text = read_all(*open_bytes(file));
    if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) return;  // an empty file
    require_text(text, file_);
    rows_ = parse_json(text, file_);
    if (!rows_.is_array()) {
      throw UserError(
          file_ + ": is of type " + rows_.type_name() +
          "; expected an array of objects [{\"column\": value, ...}, ...] (one object a "
          "line is .jsonl)");
    }
  }

  bool next(Row& row) override {
    if (next_ >= rows_.size()) return false;
    row.columns = std::move(rows_[next_++]);
    row.file = file_;
    row.number = static_cast<int64_t>(next_);
    if (!row.columns.is_object()) {
      throw BadRow(row.where() + ": is of type " + row.columns.type_name() +
                   "; expected an object {\"column\": value, ...}");
    }
    return true;
  }

 private:
  std::string file_;
  Json rows_ = Json::array();
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Reader> open_json_array(const std::filesystem::path& file, const ReaderOptions&) {
  return std::make_unique<JsonArray>(file);
}

}  // namespace temper::data
