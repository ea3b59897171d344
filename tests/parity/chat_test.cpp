// Chat templates and row formats against transformers 5.23.0 and TRL 1.16.0; files of make_chat.py.
// Equality is exact.
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <gtest/gtest.h>

#include "data/formats/row_encoder.h"
#include "data/text/chat_template.h"
#include "recipes/diagnostic.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

std::vector<Json> read_cases(const std::string& name) {
  std::vector<Json> cases;
  std::ifstream stream(golden_files("chat") / name);
  for (std::string line; std::getline(stream, line);) cases.push_back(Json::parse(line));
  EXPECT_FALSE(cases.empty()) << (golden_files("chat") / name) << " is absent or empty";
  return cases;
}

/// A model directory with the goldens' tokenizer and this template: llama3's needs the special
/// tokens.
std::optional<ChatTemplate> load_template(const Json& name) {
  if (name.is_null()) return std::nullopt;
  const auto directory = std::filesystem::temp_directory_path() /
                         ("temper-chat-" + std::to_string(::getpid()) + name.get<std::string>());
  std::filesystem::create_directories(directory);
  const auto overwrite = std::filesystem::copy_options::overwrite_existing;
  std::filesystem::copy_file(golden_files("chat") / "tokenizer" / "tokenizer_config.json",
                             directory / "tokenizer_config.json", overwrite);
  std::filesystem::copy_file(golden_files("chat") / (name.get<std::string>() + ".jinja"),
                             directory / "chat_template.jinja", overwrite);
  auto loaded = ChatTemplate::load(directory);
  std::filesystem::remove_all(directory);
  return loaded;
}

std::string bits(const std::vector<uint8_t>& mask) {
  std::string text;
  for (uint8_t bit : mask) text += bit ? '1' : '0';
  return text;
}

TEST(ChatParity, RenderedTextEqualsTransformers) {
  for (const Json& expected : read_cases("chats.jsonl")) {
    const ChatInput input{expected["messages"], expected["tools"],
                          expected["add_generation_prompt"].get<bool>(), expected["extra"]};
    EXPECT_EQ(load_template(expected["template"])->render(input).text,
              expected["text"].get<std::string>());
  }
}

TEST(ChatParity, TokensAndAssistantMasksEqualTransformers) {
  const Tokenizer tokenizer = Tokenizer::load(golden_files("chat") / "tokenizer");
  for (const Json& expected : read_cases("chats.jsonl")) {
    if (expected["add_generation_prompt"].get<bool>()) continue;  // not of training rows
    Row row{.columns = {{"messages", expected["messages"]},
                        {"tools", expected["tools"]},
                        {"chat_template_kwargs", expected["extra"]}},
            .file = "chats.jsonl",
            .number = 1};
    const bool marked = expected.contains("mask");
    const RowEncoder encoder = RowEncoder::make(
        {.format = "auto", .loss_on = marked ? recipes::LossOn::kAuto : recipes::LossOn::kAll}, {},
        row, tokenizer, load_template(expected["template"]));
    const Example example = encoder.encode(row).documents.at(0);
    EXPECT_EQ(Json(example.ids).dump(), expected["ids"].dump()) << expected["text"];
    if (marked) {
      EXPECT_EQ(bits(example.supervised), expected["mask"].get<std::string>()) << expected["text"];
    }
  }
}

TEST(ChatParity, RowsEqualTrl) {
  const Tokenizer tokenizer = Tokenizer::load(golden_files("chat") / "tokenizer");
  const std::map<std::string, recipes::LossOn> loss_on = {
      {"all", recipes::LossOn::kAll},
      {"completion", recipes::LossOn::kCompletion},
      {"assistant", recipes::LossOn::kAssistant}};
  for (const Json& expected : read_cases("rows.jsonl")) {
    Row row{.columns = expected["row"], .file = "rows.jsonl", .number = 1};
    const RowEncoder encoder = RowEncoder::make(
        {.format = "auto", .loss_on = loss_on.at(expected["loss_on"].get<std::string>())}, {}, row,
        tokenizer, load_template(expected["template"]));
    const Example example = encoder.encode(row).documents.at(0);
    EXPECT_EQ(Json(example.ids).dump(), expected["ids"].dump()) << expected["row"];
    EXPECT_EQ(bits(example.supervised), expected["mask"].get<std::string>()) << expected["row"];
  }
}

}  // namespace
}  // namespace temper::data
