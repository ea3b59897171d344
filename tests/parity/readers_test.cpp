// Parquet files of pyarrow 26.0.1 (make_readers.py) read as the same rows in JSONL do.
#include <cstdlib>

#include <gtest/gtest.h>

#include "data/readers/reader.h"

namespace temper::data {
namespace {

std::filesystem::path goldens() {
  if (const char* fresh = std::getenv("TEMPER_GOLDENS")) return fresh;
  return std::filesystem::path(std::getenv("TEMPER_SOURCE_DIR")) / "tests/parity/golden";
}

std::vector<std::string> rows(const std::filesystem::path& file) {
  std::vector<std::string> result;
  const auto reader = open_reader(file);
  for (Row row; reader->next(row);) {
    result.push_back(std::to_string(row.number) + " " + row.columns.dump());
  }
  return result;
}

TEST(Parquet, EqualsTheSameRowsInJsonl) {
  const auto expected = rows(goldens() / "readers" / "rows.jsonl");
  ASSERT_EQ(expected.size(), 6U);
  for (const char* codec : {"none", "snappy", "zstd", "gzip"}) {
    EXPECT_EQ(rows(goldens() / "readers" / (std::string(codec) + ".parquet")), expected) << codec;
  }
}

}  // namespace
}  // namespace temper::data
