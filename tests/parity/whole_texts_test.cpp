// Rows of classification, pairs and triplets against transformers 5.23 and sentence-transformers
// 6.2: files of make_whole_texts.py, with the tokenizers of make_chat.py and make_tokenizer.py.
// Equality is exact.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "data/formats/row_encoder.h"
#include "data/shards/prepare.h"
#include "tests/data/temporary_directory.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

namespace fs = std::filesystem;

Tokenizer tokenizer_of(const TemporaryDirectory& directory, const Json& given) {
  const bool chat = given["tokenizer"] == "chat";
  const fs::path from = committed_golden_files(chat ? "chat/tokenizer" : "tokenizer/bert");
  fs::copy_file(from / "tokenizer.json", directory.path() / "tokenizer.json");
  Json config = chat ? read_json(from / "tokenizer_config.json") : Json::object();
  config["truncation_side"] = given["side"];
  directory.file("tokenizer_config.json", config.dump());
  return Tokenizer::load(directory.path());
}

TEST(WholeTextsParity, IdsAndCutsEqualTheReferences) {
  std::ifstream stream(golden_files("whole_texts") / "cases.jsonl");
  int cases = 0;
  for (std::string line; std::getline(stream, line); ++cases) {
    const Json given = Json::parse(line);
    const TemporaryDirectory directory;
    const Tokenizer tokenizer = tokenizer_of(directory, given);
    std::string lines;
    for (const Json& row : given["rows"]) lines += row.dump() + "\n";
    const recipes::DataSource source{
        .path = directory.file("rows.jsonl", lines).string(), .weight = 1.0, .columns = {}};
    recipes::Recipe recipe;
    recipe.objective.kind = given["kind"].get<std::string>();
    recipe.data.max_length = given["max_length"].get<int64_t>();
    recipe.data.cache = (directory.path() / "cache").string();
    const auto encode = [&](const recipes::DataSource& from, const Row& first) {
      return source_encoder(
          RowEncoder::make(row_encoder_options(recipe), from, first, tokenizer, {}));
    };
    PrepareReport report;
    const auto dataset = prepare({source}, encode, settings_of(recipe.data), &report);
    const std::string what = line.substr(0, 120);
    const Json& expected = given["documents"];
    ASSERT_EQ(dataset->size(), std::ssize(expected)) << what;
    for (size_t i = 0; i < expected.size(); ++i) {
      const TokenizedRow row = dataset->row(static_cast<int64_t>(i));
      ASSERT_EQ(row.documents.size(), expected[i].size()) << what;
      for (size_t d = 0; d < expected[i].size(); ++d) {
        EXPECT_EQ(Json(row.documents[d].ids).dump(), expected[i][d].dump())
            << what << " row " << i << " document " << d;
      }
      const Json& from = given["rows"][i];
      const Json label = from.value("label", from.value("score", Json()));
      EXPECT_EQ(row.columns, label.is_null() ? "" : Json({{"label", label}}).dump()) << what;
    }
  }
  EXPECT_EQ(cases, 60);
}

}  // namespace
}  // namespace temper::data
