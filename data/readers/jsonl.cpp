#include <string>
#include <utility>

#include "data/readers/reader.h"

namespace temper::data {

namespace {

class JsonLines : public Reader {
 public:
  JsonLines(const std::filesystem::path& file, const ReaderOptions& options)
      : file_(file.string()),
        lines_(open_bytes(file, options.range)),
        lines_before_(options.first_line - 1) {}

  bool next(Row& row) override {
    std::string_view line;
    do {
      if (!lines_.next(line)) return false;
    } while (line.find_first_not_of(" \t\r") == std::string_view::npos);
    row.file = file_;
    row.number = lines_before_ + lines_.number();
    const std::string where = row.where();
    require_text(line, where);
    try {
      row.columns = parse_json(line, where);
    } catch (const UserError& error) {
      throw BadRow(error.lines());
    }
    if (!row.columns.is_object()) {
      throw BadRow(where + ": is of type " + row.columns.type_name() +
                   "; expected an object a line: {\"column\": value, ...}");
    }
    return true;
  }

 private:
  std::string file_;
  Lines lines_;
  int64_t lines_before_;
};

}  // namespace

std::unique_ptr<Reader> open_jsonl(const std::filesystem::path& file,
                                   const ReaderOptions& options) {
  return std::make_unique<JsonLines>(file, options);
}

}  // namespace temper::data
