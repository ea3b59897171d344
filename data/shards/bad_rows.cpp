#include "data/shards/bad_rows.h"

#include <algorithm>
#include <utility>

namespace temper::data {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{2};

}  // namespace

int64_t text_bytes(const Json& value) {
  if (value.is_string()) return static_cast<int64_t>(value.get_ref<const std::string&>().size());
  int64_t bytes = 0;
  for (const Json& part : value) {
    if (part.is_string() || part.is_structured()) bytes += text_bytes(part);
  }
  return bytes;
}

bool next_row(Reader& reader, Row& row, std::string& wrong) {
  wrong.clear();
  try {
    return reader.next(row);
  } catch (const BadRow& error) {
    wrong = join(error.lines(), "; ");
    return true;
  }
}

TokenizedRow encode_row(const SourceEncoder& encoder, const Row& row, std::string& wrong) {
  wrong.clear();
  try {
    TokenizedRow tokenized = encoder.encode(row);
    const auto is_empty = [](const Example& document) { return document.ids.empty(); };
    if (std::none_of(tokenized.documents.begin(), tokenized.documents.end(), is_empty))
      return tokenized;
    wrong = row.where() + ": no tokens; expected text";
  } catch (const UserError& error) {
    wrong = join(error.lines(), "; ");
  }
  return {};
}

void BadRows::add(const std::string& line) {
  if (count_++ == 0) first_time_ = Clock::now();
  if (count_ <= kListedRows) first_.push_back(line);
}

void BadRows::refuse_early(int64_t read) const {
  if (count_ == kListedRows || read == kFirstRows ||
      (count_ > 0 && Clock::now() - first_time_ > kPatience)) {
    refuse();
  }
}

void BadRows::refuse() const {
  if (count_ > 0) refuse_bad_rows(first_);
}

void refuse_bad_rows(std::vector<std::string> lines) {
  const std::string remedy = "data.on_bad_row=skip leaves bad rows out (counted and listed)";
  if (lines.size() == 1) throw UserError(lines.front() + "; " + remedy);
  lines.push_back("data.on_bad_row = \"error\": " + std::to_string(lines.size()) +
                  (lines.size() == kListedRows ? " bad rows or more" : " bad rows") +
                  ", listed above: mend them, or " + remedy);
  throw UserError(std::move(lines));
}

}  // namespace temper::data
