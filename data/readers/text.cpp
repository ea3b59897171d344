#include <string>
#include <utility>

#include "data/readers/reader.h"

namespace temper::data {

namespace {

// A text file is one document, column "text": what language modelling wants of a book or a source
// file. (Only a file that is cut into chunks is more than one row, one a chunk.)
class TextFile : public Reader {
 public:
  TextFile(const std::filesystem::path& file, const ReaderOptions& options)
      : file_(file.string()), bytes_(open_bytes(file, options.range)), line_(options.first_line) {}

  bool next(Row& row) override {
    if (bytes_ == nullptr) return false;
    std::string text = read_all(*std::exchange(bytes_, nullptr));
    if (text.empty()) return false;
    row.file = file_;
    row.number = line_;
    require_text(text, row.where());
    if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
    row.columns = Json::object();
    row.columns["text"] = std::move(text);
    return true;
  }

 private:
  std::string file_;
  std::unique_ptr<Bytes> bytes_;
  int64_t line_;
};

}  // namespace

std::unique_ptr<Reader> open_text(const std::filesystem::path& file, const ReaderOptions& options) {
  return std::make_unique<TextFile>(file, options);
}

}  // namespace temper::data
