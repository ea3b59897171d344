// Rows whose completions are compared or sampled against TRL 1.16.0: files of
// make_preference_rows.py, with the tokenizer and templates of make_chat.py. Equality is exact.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "data/formats/row_encoder.h"
#include "data/shards/prepare.h"
#include "data/text/chat_template.h"
#include "tests/data/temporary_directory.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

namespace fs = std::filesystem;

std::vector<Json> cases() {
  const fs::path path = golden_files("preference_rows") / "cases.jsonl";
  std::vector<Json> cases;
  std::ifstream stream(path);
  for (std::string line; std::getline(stream, line);) cases.push_back(Json::parse(line));
  EXPECT_GT(cases.size(), 30u) << path << " is absent or not whole";
  return cases;
}

// A model directory of the goldens' tokenizer and this template.
std::optional<ChatTemplate> load_template(const TemporaryDirectory& directory, const Json& name) {
  if (name.is_null()) return std::nullopt;
  const fs::path chat = committed_golden_files("chat");
  fs::copy_file(chat / "tokenizer" / "tokenizer_config.json",
                directory.path() / "tokenizer_config.json");
  fs::copy_file(chat / (name.get<std::string>() + ".jinja"),
                directory.path() / "chat_template.jinja");
  return ChatTemplate::load(directory.path());
}

std::shared_ptr<const TokenDataset> prepared(const TemporaryDirectory& directory, const Json& given,
                                             const Tokenizer& tokenizer) {
  std::string lines;
  for (const Json& row : given["rows"]) lines += row.dump() + "\n";
  const recipes::DataSource source{
      .path = directory.file("rows.jsonl", lines).string(), .weight = 1.0, .columns = {}};
  const auto chat_template = load_template(directory, given["template"]);
  const EncoderFactory factory = [&](const recipes::DataSource& from, const Row& first) {
    const RowEncoder encoder = RowEncoder::make({.kind = given["kind"].get<std::string>()}, from,
                                                first, tokenizer, chat_template);
    return SourceEncoder{.encode = [encoder](const Row& row) { return encoder.encode(row); },
                         .fingerprint = encoder.fingerprint(),
                         .format = encoder.format(),
                         .rules = encoder.rules(),
                         .statement = ""};
  };
  PrepareReport report;
  return prepare({source}, factory,
                 {.cache = directory.path() / "cache",
                  .max_length = given["max_length"].get<int64_t>(),
                  .on_bad_row = recipes::OnBadRow::kSkip},
                 &report);
}

std::string bits(const std::vector<uint8_t>& mask) {
  std::string text;
  for (const uint8_t bit : mask) text += bit ? '1' : '0';
  return text;
}

TEST(PreferenceRowsParity, IdsCompletionsAndOrderEqualTrl) {
  const Tokenizer tokenizer = Tokenizer::load(committed_golden_files("chat") / "tokenizer");
  for (const Json& given : cases()) {
    const TemporaryDirectory directory;
    const auto dataset = prepared(directory, given, tokenizer);
    const Json& expected = given["prepared"];
    const std::string what = given["kind"].dump() + " " + given["template"].dump() + " " +
                             given["max_length"].dump() + " " + given["rows"][0].dump();
    ASSERT_EQ(dataset->size(), static_cast<int64_t>(expected.size())) << what;
    for (size_t i = 0; i < expected.size(); ++i) {
      const TokenizedRow row = dataset->row(static_cast<int64_t>(i));
      const Json& documents = expected[i]["documents"];
      ASSERT_EQ(row.documents.size(), documents.size()) << what;
      for (size_t d = 0; d < documents.size(); ++d) {
        EXPECT_EQ(Json(row.documents[d].ids).dump(), documents[d]["ids"].dump())
            << what << " row " << i << " document " << d;
        if (!documents[d].contains("mask")) continue;  // a reward's: TRL has none
        EXPECT_EQ(bits(row.documents[d].supervised), documents[d]["mask"].get<std::string>())
            << what << " row " << i << " document " << d;
      }
      if (given["kind"] == "grpo") continue;  // all columns, for the rewards
      const Json columns = row.columns.empty() ? Json::object() : Json::parse(row.columns);
      EXPECT_EQ(columns, expected[i]["columns"]) << what << " row " << i;
    }
  }
}

}  // namespace
}  // namespace temper::data
