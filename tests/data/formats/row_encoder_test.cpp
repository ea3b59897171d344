#include "data/formats/row_encoder.h"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

using recipes::LossOn;

constexpr const char* kChat =
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = [] {
    const char* source = std::getenv("TEMPER_SOURCE_DIR");
    return Tokenizer::load(std::filesystem::path(source ? source : ".") /
                           "tests/parity/golden/chat/tokenizer");
  }();
  return loaded;
}

Row row_of(const std::string& json) {
  return {.columns = Json::parse(json), .file = "train.jsonl", .number = 17};
}

RowEncoder encoder_for(const Row& row, std::map<std::string, std::string> columns = {},
                       RowEncoderOptions options = {}, const char* chat_template = kChat) {
  const recipes::DataSource source{
      .path = "train.jsonl", .weight = 1, .columns = std::move(columns)};
  std::optional<ChatTemplate> parsed;
  if (chat_template) parsed = ChatTemplate::parse(chat_template, "chat");
  return RowEncoder::make(options, source, row, tokenizer(), parsed);
}

/// What of the row is learned, of one document.
std::string learned(const TokenizedRow& row, size_t document = 0) {
  const Example& example = row.documents.at(document);
  std::vector<int32_t> ids;
  for (size_t i = 0; i < example.ids.size(); ++i) {
    if (example.supervised[i]) ids.push_back(example.ids[i]);
  }
  return tokenizer().decode(ids, false);
}

std::string error_of(const std::string& json, std::map<std::string, std::string> columns = {},
                     RowEncoderOptions options = {}) {
  try {
    const Row row = row_of(json);
    encoder_for(row, std::move(columns), options).encode(row);
    return "no error";
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(RowEncoder, TextIsLearnedWholeAndGetsOneEndToken) {
  const Row row = row_of(R"({"text": "the lake"})");
  const RowEncoder encoder = encoder_for(row);
  EXPECT_EQ(encoder.statement(), "train.jsonl: text (columns text), loss on all tokens");
  EXPECT_EQ(learned(encoder.encode(row)), "<s>the lake</s>");
  EXPECT_EQ(learned(encoder.encode(row_of(R"({"text": "the lake</s>"})"))), "<s>the lake</s>");
}

TEST(RowEncoder, MappedColumnsMakePromptCompletion) {
  const Row row = row_of(R"({"question": "the lake", "answer": " is sunny"})");
  const RowEncoder encoder = encoder_for(row, {{"prompt", "question"}, {"completion", "answer"}});
  EXPECT_EQ(encoder.statement(),
            "train.jsonl: prompt-completion (columns question, answer), loss on completions");
  EXPECT_EQ(learned(encoder.encode(row)), " is sunny</s>");
}

TEST(RowEncoder, AssistantTurnsAreFoundWithoutGenerationMarks) {
  const Row row = row_of(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                                          {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]})");
  EXPECT_EQ(learned(encoder_for(row).encode(row)), "b<|im_end|>d<|im_end|>");
}

TEST(RowEncoder, ConversationsInTheSpeakerFormAreConverted) {
  const Row row = row_of(
      R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})");
  const RowEncoder encoder = encoder_for(row);
  EXPECT_EQ(encoder.format(), "messages");
  EXPECT_EQ(learned(encoder.encode(row)), "b<|im_end|>");
}

TEST(RowEncoder, TemplatesThatRewriteEarlierTurnsAreRefused) {
  const Row row = row_of(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]})");
  const RowEncoder encoder =
      encoder_for(row, {}, {}, "{% for m in messages %}{{ m.content if loop.last }}{% endfor %}");
  EXPECT_THROW(encoder.encode(row), UserError);
}

TEST(RowEncoder, FingerprintsTellMasksApart) {
  const Row row = row_of(R"({"messages": [{"role": "user", "content": "a"}]})");
  EXPECT_NE(encoder_for(row).fingerprint(),
            encoder_for(row, {}, {.loss_on = LossOn::kAll}).fingerprint());
  EXPECT_EQ(encoder_for(row).fingerprint(), encoder_for(row).fingerprint());
}

TEST(RowEncoder, BadRowsNameFileLineAndWhatIsAllowed) {
  EXPECT_EQ(error_of(R"({"text": 3})"), "train.jsonl:17: text is of type number: must be a string");
  EXPECT_EQ(error_of(R"({"text": ""})"), "train.jsonl:17: text is empty");
  EXPECT_EQ(error_of(R"({"prompt": "a", "completion": ""})"),
            "train.jsonl:17: completion is empty");
  EXPECT_EQ(error_of(R"({"messages": []})"),
            "train.jsonl:17: messages is empty: must have at least one message");
  EXPECT_EQ(error_of(R"({"messages": [{"content": "a"}]})"),
            "train.jsonl:17: messages[0] has no role: must be an object with role and content");
  EXPECT_EQ(error_of(R"({"messages": [{"role": "user", "content": "a"}]})").substr(0, 56),
            "train.jsonl:17: no token of this row is trained on (loss");
}

TEST(RowEncoder, ColumnsThatFitNothingAreListedWithThoseExpected) {
  EXPECT_EQ(error_of(R"({"instruction": "a", "output": "b"})"),
            "train.jsonl: no data format fits the columns instruction, output; expected messages "
            "or conversations (messages), or prompt and completion "
            "(prompt-completion), or text (text); name yours with columns = { prompt = \"...\", "
            "completion = \"...\" }");
  EXPECT_EQ(error_of(R"({"a": "x"})", {{"text", "b"}}),
            "train.jsonl: columns.text = \"b\": the file has no such column; found a");
  EXPECT_EQ(error_of(R"({"text": "x"})", {}, {.format = "txt"}),
            "data.format = \"txt\": must be one of auto, messages, prompt-completion, text");
  EXPECT_EQ(error_of(R"({"text": "x"})", {}, {.loss_on = LossOn::kAssistant}),
            "data.loss_on = \"assistant\": with rows of the format text must be one of auto, all");
}

}  // namespace
}  // namespace temper::data
