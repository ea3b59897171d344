#include "data/shards/token_shard.h"

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/data/temporary_directory.h"

namespace temper::data {
namespace {

TokenizedRow row_of(Example example) { return {.documents = {std::move(example)}, .columns = {}}; }

std::vector<int64_t> ends_of(const TokenShard& shard, int64_t row) {
  const auto ends = shard.document_ends(row);
  return {ends.begin(), ends.end()};
}

TEST(TokenShard, KeepsDocumentsAndColumnsOfARow) {
  const TemporaryDirectory directory;
  TokenShardWriter writer;
  writer.add({.documents = {{.ids = {1, 2, 3}, .supervised = {0, 0, 1}},
                            {.ids = {1, 2}, .supervised = {0, 1}}},
              .columns = R"({"margin":0.5})"},
             1);
  writer.add(row_of({.ids = {4}, .supervised = {0}}), 2);
  writer.add({.documents = {{.ids = {5, 6}, .supervised = {0, 1}}}, .columns = "x"}, 3);
  writer.write(directory.path() / "a.h5");
  const TokenShard shard(directory.path() / "a.h5");
  ASSERT_EQ(shard.rows(), 3);
  EXPECT_EQ(ends_of(shard, 0), (std::vector<int64_t>{0, 3, 5}));
  EXPECT_EQ(ends_of(shard, 1), (std::vector<int64_t>{5, 6}));
  EXPECT_EQ(ends_of(shard, 2), (std::vector<int64_t>{6, 8}));
  EXPECT_EQ(shard.columns(0), R"({"margin":0.5})");
  EXPECT_EQ(shard.columns(1), "");
  EXPECT_EQ(shard.columns(2), "x");
}

TEST(TokenShard, GivesBackWhatWasWritten) {
  const TemporaryDirectory directory;
  for (const int32_t largest : {65535, 65536}) {  // 16 and 32 bits a token
    TokenShardWriter writer;
    writer.add(row_of({.ids = {1, 2, largest}, .supervised = {0, 1, 1}}), 4);
    writer.add(
        row_of({.ids = {5, 6, 7, 8, 9, 10, 11, 12}, .supervised = {1, 0, 0, 0, 1, 1, 0, 1}}), 9);
    writer.write(directory.path() / "a.h5");
    const TokenShard shard(directory.path() / "a.h5");
    ASSERT_EQ(shard.rows(), 2);
    EXPECT_EQ(shard.row_number(0), 4);
    EXPECT_EQ(shard.row_number(1), 9);
    EXPECT_EQ(ends_of(shard, 0), (std::vector<int64_t>{0, 3}));
    EXPECT_EQ(ends_of(shard, 1), (std::vector<int64_t>{3, 11}));
    EXPECT_EQ(shard.tokens(), 11);
    const Example first = shard.tokens(0, 3);
    EXPECT_EQ(first.ids, (std::vector<int32_t>{1, 2, largest}));
    EXPECT_EQ(first.supervised, (std::vector<uint8_t>{0, 1, 1}));
    const Example part = shard.tokens(6, 4);
    EXPECT_EQ(part.ids, (std::vector<int32_t>{8, 9, 10, 11}));
    EXPECT_EQ(part.supervised, (std::vector<uint8_t>{0, 1, 1, 0}));
    EXPECT_EQ(shard.supervised_count(0, 11), 6);
    EXPECT_EQ(shard.supervised_count(1, 9), 5);
  }
}

TEST(TokenShard, EqualRowsGiveEqualBytes) {
  const TemporaryDirectory directory;
  const auto bytes = [&](const std::string& name) {
    TokenShardWriter writer;
    writer.add(row_of({.ids = {1, 2}, .supervised = {0, 1}}), 1);
    writer.write(directory.path() / name);
    std::ifstream file(directory.path() / name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(bytes("a.h5"), bytes("b.h5"));
}

TEST(TokenShard, RefusesTruncatedAndForeignFiles) {
  const TemporaryDirectory directory;
  TokenShardWriter writer;
  writer.add(row_of({.ids = std::vector<int32_t>(1000, 3),
                     .supervised = std::vector<uint8_t>(1000, 1)}),
             1);
  const std::filesystem::path path = directory.path() / "a.h5";
  writer.write(path);
  std::filesystem::resize_file(path, 2500);
  EXPECT_THROW(TokenShard shard(path), RunError);
  EXPECT_THROW(TokenShard shard(directory.file("b.h5", "not HDF5")), RunError);
  EXPECT_THROW(TokenShard shard(directory.file("c.h5", "")), RunError);
  EXPECT_THROW(TokenShard shard(directory.path() / "none.h5"), RunError);
}

TEST(TokenShard, AShardThatCannotBeWrittenLeavesNothing) {
  const TemporaryDirectory directory;
  EXPECT_THROW(TokenShardWriter().write(directory.path() / "none" / "a.h5"), RunError);
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace temper::data
