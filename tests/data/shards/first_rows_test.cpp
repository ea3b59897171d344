#include "data/shards/first_rows.h"

#include <atomic>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/data/temporary_directory.h"

namespace temper::data {
namespace {

// Files are sparse: a little text, then a hole that makes them large without costing anything.
class FirstRows : public testing::Test {
 protected:
  static constexpr int64_t kLarge = int64_t{8} << 30;

  recipes::DataSource jsonl(const std::string& name, const std::vector<std::string>& texts,
                            int64_t size = 0) const {
    std::string content;
    for (const std::string& text : texts) content += "{\"text\": \"" + text + "\"}\n";
    const std::filesystem::path path = directory.file(name, content);
    if (size > 0) std::filesystem::resize_file(path, static_cast<uintmax_t>(size));
    return {.path = path.string(), .weight = 1.0, .columns = {}};
  }

  PrepareOptions options() const { return {.cache = directory.path() / "cache", .max_length = 8}; }

  /// A token a character, at most 16; upper case is supervised; "!" makes a bad row.
  EncoderFactory factory() {
    return [this](const recipes::DataSource&, const Row&) {
      return SourceEncoder{
          .encode =
              [this](const Row& row) {
                ++encoded;
                Example example;
                for (const char c : row.columns.at("text").get<std::string>().substr(0, 16)) {
                  if (c == '!') throw UserError(row.where() + ": exclaims");
                  example.ids.push_back(c);
                  example.supervised.push_back(c < 'a');
                }
                return TokenizedRow{.documents = {std::move(example)}, .columns = {}};
              },
          .fingerprint = "letters",
          .format = "messages",
          .statement = ""};
    };
  }

  /// The first line refused, without the directory; empty when the rows are good.
  std::string check(const std::vector<recipes::DataSource>& sources, const PrepareOptions& how) {
    try {
      check_first_rows(sources, factory(), how);
    } catch (const UserError& error) {
      std::string line = error.lines().front();
      const std::string prefix = directory.path().string() + "/";
      if (const size_t at = line.find(prefix); at != std::string::npos)
        line.erase(at, prefix.size());
      last_line = error.lines().back();
      return line;
    }
    return "";
  }

  TemporaryDirectory directory;
  std::atomic<int> encoded = 0;
  std::string last_line;
};

std::vector<std::string> good(size_t rows) { return std::vector<std::string>(rows, "xAB"); }

TEST_F(FirstRows, ABadRowOfALargeFileIsFoundBeforeTheFileIsRead) {
  std::vector<std::string> texts = good(10'000);
  texts[9'999] = "!";
  EXPECT_EQ(
      check({jsonl("a.jsonl", texts, kLarge)}, options()),
      "a.jsonl:10000: exclaims; data.on_bad_row=skip leaves bad rows out (counted and listed)");
  EXPECT_EQ(encoded, 10'000);
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "cache"));
}

TEST_F(FirstRows, EveryRowBeyondIsLeftToTokenizing) {
  std::vector<std::string> texts = good(10'001);
  texts[10'000] = "!";
  EXPECT_EQ(check({jsonl("a.jsonl", texts, kLarge)}, options()), "");
  EXPECT_EQ(encoded, 10'000);
}

TEST_F(FirstRows, TheLastSourceIsCheckedBeforeTheFirstIsRead) {
  EXPECT_EQ(
      check({jsonl("a.jsonl", good(10'000), kLarge), jsonl("b.jsonl", {"xA", "!"})}, options()),
      "b.jsonl:2: exclaims; data.on_bad_row=skip leaves bad rows out (counted and listed)");
  EXPECT_EQ(encoded, 10'002);
}

TEST_F(FirstRows, TenBadRowsAreEnough) {
  EXPECT_EQ(check({jsonl("a.jsonl", std::vector<std::string>(20'000, "!"), kLarge)}, options()),
            "a.jsonl:1: exclaims");
  EXPECT_EQ(encoded, 10);
}

TEST_F(FirstRows, RowsWithoutASupervisedTokenWithinMaxLengthAreBad) {
  std::vector<std::string> texts = good(10'000);
  texts[3] = "abcdefghijK";
  texts[5] = "abcdefghiJ";
  EXPECT_EQ(check({jsonl("a.jsonl", texts, kLarge)}, options()),
            "a.jsonl:4: no supervised token within data.max_length = 8 (the first is token 11)");
  EXPECT_EQ(
      last_line,
      "data.on_bad_row = \"error\": 2 of the first 10000 rows without a supervised token (the "
      "first are listed): data.max_length=11 reaches them, or data.on_bad_row=skip leaves them "
      "out (counted and listed)");
}

TEST_F(FirstRows, LongRowsEndTheCheck) {
  const std::string megabytes(25 << 20, 'A');
  EXPECT_EQ(check({jsonl("a.jsonl", {megabytes, megabytes, megabytes, "!"}, kLarge)}, options()),
            "");
  EXPECT_EQ(encoded, 2);
}

TEST_F(FirstRows, NothingIsDoneTwiceForSmallFiles) {
  EXPECT_EQ(check({jsonl("a.jsonl", {"!"})}, options()), "");
  EXPECT_EQ(encoded, 0);
}

TEST_F(FirstRows, NothingIsDoneWhereBadRowsAreSkipped) {
  PrepareOptions skip = options();
  skip.on_bad_row = recipes::OnBadRow::kSkip;
  EXPECT_EQ(check({jsonl("a.jsonl", {"!"}, kLarge)}, skip), "");
  EXPECT_EQ(encoded, 0);
}

TEST_F(FirstRows, NothingIsDoneForWhatIsInTheCache) {
  const std::string padding(1 << 20, ' ');
  std::string content;
  for (int i = 0; i < 70; ++i) content += "{\"text\":" + padding + "\"xA\"}\n";
  const std::vector<recipes::DataSource> sources = {
      {.path = directory.file("a.jsonl", content).string(), .weight = 1.0, .columns = {}}};
  PrepareReport report;
  prepare(sources, factory(), options(), &report);
  EXPECT_EQ(encoded, 70);
  EXPECT_EQ(check(sources, options()), "");
  EXPECT_EQ(encoded, 70);
  PrepareOptions elsewhere = options();
  elsewhere.cache = directory.path() / "empty";
  EXPECT_EQ(check(sources, elsewhere), "");
  EXPECT_EQ(encoded, 140);
}

}  // namespace
}  // namespace temper::data
