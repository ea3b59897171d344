#include "data/readers/reader.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "tests/data/temporary_directory.h"

namespace temper::data {
namespace {

// What a reader makes of a file: a row's JSON, or "bad: message" without the directory.
std::vector<std::string> read(const std::filesystem::path& file,
                              const ReaderOptions& options = {}) {
  std::vector<std::string> result;
  const auto relative = [&](std::string text) {
    const std::string prefix = file.parent_path().string() + "/";
    for (size_t at; (at = text.find(prefix)) != std::string::npos;) text.erase(at, prefix.size());
    return text;
  };
  try {
    const auto reader = open_reader(file, options);
    for (;;) {
      Row row;
      try {
        if (!reader->next(row)) break;
        result.push_back(std::to_string(row.number) + " " + row.columns.dump());
      } catch (const BadRow& error) {
        result.push_back("bad: " + relative(error.what()));
      }
    }
  } catch (const UserError& error) {
    result.push_back("refused: " + relative(error.what()));
  }
  return result;
}

using Rows = std::vector<std::string>;

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string result(text.size() + 100, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  deflate(&stream, Z_FINISH);
  result.resize(stream.total_out);
  deflateEnd(&stream);
  return result;
}

std::string zstd(const std::string& text) {
  std::string result(ZSTD_compressBound(text.size()), '\0');
  result.resize(ZSTD_compress(result.data(), result.size(), text.data(), text.size(), 3));
  return result;
}

TEST(Jsonl, GivesARowALineAndSkipsBlankOnes) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file("a.jsonl", "{\"b\":1,\"a\":\"\xc3\xa9\"}\r\n\n  \n{\"b\":[2]}")),
            (Rows{"1 {\"b\":1,\"a\":\"\xc3\xa9\"}", "4 {\"b\":[2]}"}));
}

TEST(Jsonl, NamesTheLineOfABadRowAndReadsOn) {
  const TemporaryDirectory directory;
  const Rows rows =
      read(directory.file("a.jsonl", "{\"a\":1}\n{\"a\":\n[1]\n{\"a\":\"\xff\"}\n{\"a\":2}\n"));
  ASSERT_EQ(rows.size(), 5U);
  EXPECT_EQ(rows[1].rfind("bad: a.jsonl:2: ", 0), 0U) << rows[1];
  EXPECT_EQ(
      rows[2],
      "bad: a.jsonl:3: is of type array; expected an object a line: {\"column\": value, ...}");
  EXPECT_EQ(rows[3], "bad: a.jsonl:4: is not UTF-8; expected UTF-8 text (iconv -t UTF-8 converts)");
  EXPECT_EQ(rows[4], "5 {\"a\":2}");
}

TEST(Jsonl, ReadsAPartWithTheLineNumbersOfTheWhole) {
  const TemporaryDirectory directory;
  const auto file = directory.file("a.jsonl", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
  EXPECT_EQ(read(file, {.range = {.begin = 8, .end = 16}, .first_line = 2}), (Rows{"2 {\"a\":2}"}));
}

TEST(Jsonl, ReadsLinesLongerThanItsBuffer) {
  const TemporaryDirectory directory;
  const std::string text(3 << 20, 'x');
  const Rows rows = read(directory.file("a.jsonl", "{\"a\":\"" + text + "\"}\n{\"a\":2}\n"));
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].size(), text.size() + 10);
  EXPECT_EQ(rows[1], "2 {\"a\":2}");
}

TEST(Jsonl, RefusesValuesNestedTooDeeply) {
  const TemporaryDirectory directory;
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  for (const char* number : {"1", "123456789012345678901234567890"}) {
    const auto file = directory.file("a.jsonl", "{\"n\": " + std::string(number) +
                                                    ", \"x\": " + deep + "}\n{\"text\": \"b\"}\n");
    EXPECT_EQ(read(file), (Rows{"bad: a.jsonl:1: not valid JSON: nested deeper than 1024 levels",
                                R"(2 {"text":"b"})"}));
  }
}

TEST(JsonArray, GivesItsObjects) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file("a.json", "[{\"a\":1},\n 5, {\"a\":2}]")),
            (Rows{"1 {\"a\":1}",
                  "bad: a.json:2: is of type number; expected an object {\"column\": value, ...}",
                  "3 {\"a\":2}"}));
}

TEST(JsonArray, RefusesASingleObject) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file("a.json", "{\"a\":1}")),
            (Rows{"refused: a.json: is of type object; expected an array of objects "
                  "[{\"column\": value, ...}, ...] (one object a line is .jsonl)"}));
}

TEST(JsonArray, CutsAtCommasAndBracketsOutsideOfStringsAlone) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file(
                "a.json", "\xEF\xBB\xBF [ {\"a\":\"],\\\"}\\\\\"} ,{\"b\":[[1,{}],\"[\"]}\n]\n")),
            (Rows{R"(1 {"a":"],\"}\\"})", R"(2 {"b":[[1,{}],"["]})"}));
  EXPECT_EQ(read(directory.file("b.json", " [ \n] ")), Rows{});
}

TEST(JsonArray, ReadsRowsLargerThanItsBufferAndMoreOfThem) {
  const TemporaryDirectory directory;
  std::string text = "[";
  Rows expected;
  for (int i = 1; i <= 40; ++i) {
    const std::string row =
        "{\"a\":\"" + std::string(static_cast<size_t>(i % 8) * 300'000, 'x') + "\"}";
    text += (i == 1 ? "" : " ,\n") + row;
    expected.push_back(std::to_string(i) + " " + row);
  }
  EXPECT_TRUE(read(directory.file("a.json", text + "]")) == expected);
  EXPECT_TRUE(read(directory.file("a.json.gz", gzip(text + "]"))) == expected);
}

TEST(JsonArray, TellsWhereAnArrayIsBroken) {
  const TemporaryDirectory directory;
  EXPECT_EQ(
      read(directory.file("a.json", "[{\"a\":1},\n{\"a\":\n2")),
      (Rows{R"(1 {"a":1})",
            "refused: a.json: ends within its array, after 1 rows: the file is truncated, or a "
            "quote or bracket is missing"}));
  EXPECT_EQ(read(directory.file("b.json", "[{\"a\":1}]\n]")),
            (Rows{R"(1 {"a":1})", "refused: b.json: goes on after the end of its array"}));
  const Rows malformed = read(directory.file("c.json", "[{\"a\":1},\n\n{\"a\" 2}]"));
  ASSERT_EQ(malformed.size(), 2U);
  EXPECT_EQ(
      malformed[1].rfind("refused: c.json:2 (from line 3 of the file): not valid JSON: column ", 0),
      0U)
      << malformed[1];
  const Rows gap = read(directory.file("d.json", "[{\"a\":1},]"));
  ASSERT_EQ(gap.size(), 2U);
  EXPECT_EQ(gap[1].rfind("refused: d.json:2 (from line 1 of the file): not valid JSON: ", 0), 0U)
      << gap[1];
  EXPECT_EQ(read(directory.file("e.json", "5")),
            (Rows{"refused: e.json: is no JSON array; expected an array of objects "
                  "[{\"column\": value, ...}, ...] (one object a line is .jsonl)"}));
  EXPECT_EQ(read(directory.file("f.json", "[{\"a\":\"\xFF\"}, {\"a\":1}]")),
            (Rows{"bad: f.json:1: is not UTF-8; expected UTF-8 text (iconv -t UTF-8 converts)",
                  R"(2 {"a":1})"}));
}

TEST(Csv, ReadsQuotesCommasAndLineEndsWithinQuotes) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file("a.csv",
                                "\xEF\xBB\xBFtext,label\r\n\"a, \"\"b\"\"\nc\",1\r\n,\r\n\r\nd,2")),
            (Rows{R"(2 {"text":"a, \"b\"\nc","label":"1"})", R"(4 {"text":"","label":""})",
                  R"(6 {"text":"d","label":"2"})"}));
}

TEST(Csv, CallsARowWithTooManyFieldsBadAndReadsOn) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file("a.csv", "a,b\n1,2,3\n4,5\n")),
            (Rows{"bad: a.csv:2: has 3 fields; expected 2 as in the header (a field with a comma "
                  "is quoted)",
                  R"(3 {"a":"4","b":"5"})"}));
}

TEST(Csv, RefusesAHeaderThatNamesAColumnTwiceAndAQuoteLeftOpen) {
  const TemporaryDirectory directory;
  EXPECT_EQ(
      read(directory.file("a.csv", "a,b,a\n1,2,3\n")),
      (Rows{"refused: a.csv:1: column 'a' stands twice in the header; expected different names"}));
  EXPECT_EQ(read(directory.file("b.csv", "a\n\"x\ny\n")),
            (Rows{"refused: b.csv:2: a quoted field is never closed; expected a closing \""}));
}

TEST(Csv, RefusesANulByte) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file("a.csv", std::string("a\nx\0y\n", 6))),
            (Rows{"bad: a.csv:2: column 'a': holds a NUL byte; expected UTF-8 text"}));
}

TEST(Text, IsOneDocumentAFile) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read(directory.file("a.txt", "one\n\ntwo\n")), (Rows{R"(1 {"text":"one\n\ntwo\n"})"}));
}

TEST(Compressed, GzipAndZstdReadAsTheirContents) {
  const TemporaryDirectory directory;
  const Rows expected = {"1 {\"a\":1}", "2 {\"a\":2}"};
  EXPECT_EQ(read(directory.file("a.jsonl.gz", gzip("{\"a\":1}\n{\"a\":2}\n"))), expected);
  EXPECT_EQ(read(directory.file("b.jsonl.gz", gzip("{\"a\":1}\n") + gzip("{\"a\":2}\n"))),
            expected);
  EXPECT_EQ(read(directory.file("a.jsonl.zst", zstd("{\"a\":1}\n{\"a\":2}\n"))), expected);
  EXPECT_EQ(read(directory.file("b.jsonl.zst", zstd("{\"a\":1}\n") + zstd("{\"a\":2}\n"))),
            expected);
}

TEST(Compressed, TruncatedAndMisnamedFilesAreRefused) {
  const TemporaryDirectory directory;
  const std::string whole = gzip(std::string(1000, 'x'));
  const std::string whole_zstd = zstd(std::string(1000, 'x'));
  EXPECT_EQ(read(directory.file("a.txt.gz", whole.substr(0, whole.size() - 9))),
            (Rows{"refused: a.txt.gz: ends within gzip data: the file is truncated"}));
  EXPECT_EQ(read(directory.file("b.txt.gz", "plain text")),
            (Rows{"refused: b.txt.gz: is not gzip data: the file is damaged or misnamed"}));
  EXPECT_EQ(read(directory.file("a.txt.zst", whole_zstd.substr(0, whole_zstd.size() - 2))),
            (Rows{"refused: a.txt.zst: ends within zstd data: the file is truncated"}));
  EXPECT_EQ(read(directory.file("b.txt.zst", "plain text")),
            (Rows{"refused: b.txt.zst: is not zstd data: the file is damaged or misnamed"}));
}

TEST(EmptyFiles, HaveNoRows) {
  const TemporaryDirectory directory;
  for (const char* name : {"a.jsonl", "a.json", "a.csv", "a.txt"}) {
    EXPECT_EQ(read(directory.file(name, "")), Rows{}) << name;
  }
}

TEST(Parquet, RefusesAFileThatIsNotOne) {
  const TemporaryDirectory directory;
  const Rows rows = read(directory.file("a.parquet", "not parquet at all"));
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].rfind("refused: a.parquet: ", 0), 0U) << rows[0];
}

}  // namespace
}  // namespace temper::data
