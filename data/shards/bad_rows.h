#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "data/formats/example.h"
#include "data/readers/reader.h"
#include "data/shards/prepare.h"

/// Rows that cannot be trained on: met one by one, counted, and with data.on_bad_row = "error" told
/// together.
namespace temper::data {

inline constexpr int64_t kListedRows = 10;
inline constexpr int64_t kFirstRows = 10'000;

/// The next row; false at the end of the file. `wrong` is empty, or says why the row is bad. Throws
/// UserError for a file that cannot be read on.
bool next_row(Reader& reader, Row& row, std::string& wrong);
/// The row's tokens. `wrong` is empty, or says why the row is bad.
TokenizedRow encode_row(const SourceEncoder& encoder, const Row& row, std::string& wrong);

/// Of all strings in it: what there is to tokenize.
int64_t text_bytes(const Json& value);

class BadRows {
 public:
  void add(const std::string& line);
  int64_t count() const { return count_; }
  /// At most kListedRows.
  const std::vector<std::string>& first() const { return first_; }
  /// Throws UserError once enough is known to stop and tell, early but with more than the first
  /// fault: ten bad rows, or any among the first 10,000 that were `read`, or a few seconds after
  /// the first.
  void refuse_early(int64_t read) const;
  /// Throws UserError if there are any.
  void refuse() const;

 private:
  int64_t count_ = 0;
  std::vector<std::string> first_;
  std::chrono::steady_clock::time_point first_time_;
};

/// The bad rows of on_bad_row = error as one error: its lines, then the remedies.
[[noreturn]] void refuse_bad_rows(std::vector<std::string> lines);

}  // namespace temper::data
