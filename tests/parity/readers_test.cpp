// Parquet files of pyarrow 26.0.1 (make_readers.py) read as the same rows in JSONL do.

#include <gtest/gtest.h>

#include "data/readers/reader.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

std::vector<std::string> rows(const std::filesystem::path& file) {
  std::vector<std::string> result;
  const auto reader = open_reader(file);
  for (Row row; reader->next(row);) {
    result.push_back(std::to_string(row.number) + " " + row.columns.dump());
  }
  return result;
}

TEST(Parquet, EqualsTheSameRowsInJsonl) {
  const auto expected = rows(golden_files("readers") / "rows.jsonl");
  ASSERT_EQ(expected.size(), 6U);
  for (const char* codec : {"none", "snappy", "zstd", "gzip"}) {
    EXPECT_EQ(rows(golden_files("readers") / (std::string(codec) + ".parquet")), expected) << codec;
  }
}

}  // namespace
}  // namespace temper::data
