#include <algorithm>
#include <string>
#include <string_view>

#include "data/readers/reader.h"

namespace temper::data {

namespace {

constexpr size_t kBufferBytes = 1 << 20;
constexpr std::string_view kSpace = " \t\r\n";

// Cuts the array into its elements by quotes and brackets alone, and has each parsed by itself: no
// more than one and a buffer is in memory, whatever the file's size.
class JsonArray : public Reader {
 public:
  explicit JsonArray(const std::filesystem::path& file)
      : file_(file.string()), bytes_(open_bytes(file)) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    more();
    if (text_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
    if (!skip_space()) {  // an empty file
      closed_ = true;
    } else if (text_[at_] != '[') {
      throw UserError(file_ + (text_[at_] == '{' ? ": is of type object" : ": is no JSON array") +
                      "; expected an array of objects [{\"column\": value, ...}, ...] (one object "
                      "a line is .jsonl)");
    } else {
      ++at_;
    }
  }

  bool next(Row& row) override {
    if (closed_) {
      if (skip_space()) throw UserError(file_ + ": goes on after the end of its array");
      return false;
    }
    const std::string_view element = take_element();
    if (number_ == 0 && closed_ && element.find_first_not_of(kSpace) == std::string::npos) {
      return next(row);  // []
    }
    row.file = file_;
    row.number = ++number_;
    const int64_t line = line_;
    line_ += std::count(element.begin(), element.end(), '\n');
    require_text(element, row.where());
    row.columns =
        parse_json(element, row.where() + " (from line " + std::to_string(line) + " of the file)");
    if (!row.columns.is_object()) {
      throw BadRow(row.where() + ": is of type " + row.columns.type_name() +
                   "; expected an object {\"column\": value, ...}");
    }
    return true;
  }

 private:
  /// False at the end of the file; forgets what stands before at_.
  bool more() {
    text_.erase(0, at_);
    at_ = 0;
    const size_t before = text_.size();
    text_.resize(before + kBufferBytes);
    text_.resize(before + bytes_->read(text_.data() + before, kBufferBytes));
    return text_.size() > before;
  }

  /// Whether something else follows.
  bool skip_space() {
    for (;; ++at_) {
      if (at_ == text_.size() && !more()) return false;
      if (kSpace.find(text_[at_]) == std::string::npos) return true;
      line_ += text_[at_] == '\n' ? 1 : 0;
    }
  }

  /// What stands before the next comma or the array's end. Valid until the next call.
  std::string_view take_element() {
    skip_space();
    int64_t depth = 0;
    bool in_string = false, escaped = false;
    for (size_t length = 0;; ++length) {
      if (at_ + length == text_.size() && !more()) {
        throw UserError(file_ + ": ends within its array, after " + std::to_string(number_) +
                        " rows: the file is truncated, or a quote or bracket is missing");
      }
      const char c = text_[at_ + length];
      if (in_string) {
        in_string = escaped || c != '"';
        escaped = !escaped && c == '\\';
      } else if (depth == 0 && (c == ',' || c == ']')) {
        closed_ = c == ']';
        at_ += length + 1;
        return std::string_view(text_).substr(at_ - length - 1, length);
      } else {
        in_string = c == '"';
        depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
      }
    }
  }

  std::string file_;
  std::unique_ptr<Bytes> bytes_;
  std::string text_;
  size_t at_ = 0;  // in text_: before it all is read
  bool closed_ = false;
  int64_t number_ = 0;
  int64_t line_ = 1;  // at at_
};

}  // namespace

std::unique_ptr<Reader> open_json_array(const std::filesystem::path& file, const ReaderOptions&) {
  return std::make_unique<JsonArray>(file);
}

}  // namespace temper::data
