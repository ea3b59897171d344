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

// Writes the names of called functions; chats without tools know no such thing.
constexpr const char* kCalls =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ "
    "c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}|{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

TEST(RowEncoder, FunctionCallsOfTheSpeakerFormBecomeToolCallsWhereTheTemplateKnowsThem) {
  const Row row = row_of(
      R"({"conversations": [{"from": "human", "value": "a"},
          {"from": "function_call", "value": "{\"name\": \"add\", \"arguments\": {\"x\": 1}}"},
          {"from": "observation", "value": "2"}, {"from": "gpt", "value": "b"}], "system": "s"})");
  const RowEncoder encoder = encoder_for(row, {}, {}, kCalls);
  EXPECT_EQ(encoder.statement(),
            "train.jsonl: messages (columns conversations, system), loss on assistant turns");
  EXPECT_EQ(learned(encoder.encode(row)), "<call>add{\"x\": 1}|b|");
  const RowEncoder whole = encoder_for(row, {}, {.loss_on = LossOn::kAll}, kCalls);
  EXPECT_EQ(learned(whole.encode(row)),
            "[system]s|[user]a|[assistant]<call>add{\"x\": 1}|[tool]2|[assistant]b|");
  EXPECT_EQ(learned(encoder_for(row).encode(row)),
            "{\"name\": \"add\", \"arguments\": {\"x\": 1}}<|im_end|>b<|im_end|>");
  const Row text = row_of(
      R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "add"}]})");
  EXPECT_THROW(encoder_for(text, {}, {}, kCalls).encode(text), UserError);
}

TEST(RowEncoder, AlpacaRowsAreChatsWhereTheModelHasATemplate) {
  const Row row = row_of(
      R"({"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]], "system": "s"})");
  const RowEncoder chats = encoder_for(row);
  EXPECT_EQ(chats.statement(),
            "train.jsonl: alpaca (columns instruction, output, input, system, history), loss on "
            "completions, as chats");
  EXPECT_EQ(learned(chats.encode(row)), "c<|im_end|>");
  EXPECT_EQ(tokenizer().decode(chats.encode(row).documents[0].ids, false),
            "<|im_start|>system\ns<|im_end|><|im_start|>user\nd<|im_end|><|im_start|>assistant\ne"
            "<|im_end|><|im_start|>user\na\nb<|im_end|><|im_start|>assistant\nc<|im_end|>");
  const RowEncoder text = encoder_for(row, {}, {}, nullptr);
  EXPECT_EQ(text.statement(),
            "train.jsonl: alpaca (columns instruction, output, input, system, history), loss on "
            "completions, as text for want of a chat template");
  EXPECT_EQ(learned(text.encode(row)), "c</s>");
  EXPECT_EQ(tokenizer().decode(text.encode(row).documents[0].ids, false),
            "<s>s\nd\ne\na\nb\nc</s>");
  EXPECT_EQ(error_of(R"({"instruction": "a", "output": "b", "history": ["c"]})"),
            "train.jsonl:17: history must be a list of [question, answer]");
}

TEST(RowEncoder, RowsOfAnotherFormatThanTheFirstAreRefused) {
  const RowEncoder encoder = encoder_for(row_of(R"({"text": "a"})"));
  try {
    encoder.encode(row_of(R"({"messages": [{"role": "user", "content": "a"}]})"));
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "train.jsonl:17: has the columns messages (messages), but the file's first row is "
                 "text: must have text; one file, one format");
  }
}

TEST(RowEncoder, GenerationPromptsThatTheTurnDoesNotKeepBeginItWhereTheyPart) {
  const Row row = row_of(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})");
  const RowEncoder encoder =
      encoder_for(row, {}, {},
                  "{% for m in messages %}<{{ m.role }}>{{ m.content }}|{% endfor %}"
                  "{% if add_generation_prompt %}<assistant>(thinks){% endif %}");
  EXPECT_EQ(learned(encoder.encode(row)), "b|");
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
  EXPECT_EQ(error_of(R"({"question": "a", "answer": "b"})"),
            "train.jsonl: no data format fits the columns question, answer; expected messages "
            "or conversations (messages), or prompt and completion "
            "(prompt-completion), or instruction and output (alpaca), or text (text) for "
            "objective.kind = \"sft\" (these are pairs, for embed, cross_encoder); name yours "
            "with columns = { prompt = \"...\", completion = \"...\" }");
  EXPECT_EQ(error_of(R"({"a": "x"})", {{"text", "b"}}),
            "train.jsonl: columns.text = \"b\": the file has no such column; found a");
  EXPECT_EQ(error_of(R"({"text": "x"})", {}, {.format = "txt"}),
            "data.format = \"txt\": must be one of auto, messages, prompt-completion, alpaca, "
            "text");
  EXPECT_EQ(error_of(R"({"text": "x"})", {}, {.loss_on = LossOn::kAssistant}),
            "data.loss_on = \"assistant\": with rows of the format text must be one of auto, all");
}

// ---- rows of objectives other than sft ---------------------------------------------------------

RowEncoder encoder_of(const std::string& kind, const Row& row,
                      std::map<std::string, std::string> columns = {}) {
  return encoder_for(row, std::move(columns), {.kind = kind});
}

std::string error_of_kind(const std::string& kind, const std::string& json,
                          const std::string& format = "auto") {
  return error_of(json, {}, {.format = format, .kind = kind});
}

TEST(Preference, IsTwoDocumentsWithTheirCompletionsLearned) {
  const Row row = row_of(R"({"prompt": "the lake", "chosen": " is sunny", "rejected": " it's"})");
  const RowEncoder encoder = encoder_of("dpo", row);
  EXPECT_EQ(encoder.statement(),
            "train.jsonl: preference (columns chosen, rejected, prompt), loss on completions");
  const TokenizedRow tokens = encoder.encode(row);
  ASSERT_EQ(tokens.documents.size(), 2u);
  EXPECT_EQ(learned(tokens, 0), " is sunny</s>");
  EXPECT_EQ(learned(tokens, 1), " it's</s>");
  EXPECT_EQ(tokens.columns, "");
}

TEST(Preference, WithoutPromptBeginsWhereTheTwoPart) {
  const Row row = row_of(R"({"chosen": "the lake is sunny", "rejected": "the lake lies"})");
  const TokenizedRow tokens = encoder_of("dpo", row).encode(row);
  EXPECT_EQ(learned(tokens, 0), " is sunny</s>");
  EXPECT_EQ(learned(tokens, 1), " lies</s>");
}

TEST(Preference, OfMessagesTakesCommonTurnsForThePrompt) {
  const Row row = row_of(
      R"({"prompt": "a", "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
          "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]})");
  for (const char* kind : {"dpo", "kto"}) {
    const TokenizedRow tokens = encoder_of(kind, row).encode(row);
    EXPECT_EQ(learned(tokens, 0), "b<|im_end|>") << kind;
    EXPECT_EQ(learned(tokens, 1), "c<|im_end|>") << kind;
  }
  // These add the end token, to conversations too.
  EXPECT_EQ(learned(encoder_of("orpo", row).encode(row)), "b<|im_end|></s>");
}

TEST(Preference, OfRewardsIsWhatTheTextsDifferIn) {
  const Row row = row_of(
      R"({"prompt": "the lake", "chosen": " is sunny", "rejected": " is naive", "margin": 2})");
  const RowEncoder encoder = encoder_of("reward", row);
  const TokenizedRow tokens = encoder.encode(row);
  EXPECT_EQ(learned(tokens, 0).back(), '>');
  EXPECT_EQ(tokens.columns, R"({"margin":2})");
  EXPECT_EQ(encoder.rules().on_long_row, recipes::OnLongRow::kDrop);
  // What both begin with is one run of tokens, and is not learned.
  const Example& chosen = tokens.documents[0];
  const Example& rejected = tokens.documents[1];
  for (size_t i = 0; i < chosen.ids.size() && !chosen.supervised[i]; ++i)
    EXPECT_EQ(chosen.ids[i], rejected.ids[i]);
  const Row equal = row_of(R"({"chosen": "the lake", "rejected": "the lake"})");
  EXPECT_EQ(learned(encoder_of("reward", equal).encode(equal)), "</s>");
}

TEST(Preference, IsTwoRowsForKto) {
  const Row row = row_of(R"({"prompt": "the", "chosen": " lake", "rejected": " weather"})");
  const RowEncoder encoder = encoder_of("kto", row);
  EXPECT_TRUE(encoder.rules().unpaired);
  EXPECT_EQ(encoder.encode(row).columns, "{\"label\":true}\n{\"label\":false}");
  EXPECT_FALSE(encoder_of("dpo", row).rules().unpaired);
}

TEST(UnpairedPreference, KeepsItsLabel) {
  for (const auto& [label, columns] :
       std::map<std::string, std::string>{{"true", R"({"label":true})"},
                                          {"1", R"({"label":true})"},
                                          {"0", R"({"label":false})"}}) {
    const Row row = row_of(R"({"prompt": "the", "completion": " lake", "label": )" + label + "}");
    const RowEncoder encoder = encoder_of("kto", row);
    EXPECT_EQ(encoder.format(), "unpaired-preference");
    EXPECT_EQ(encoder.encode(row).columns, columns);
    EXPECT_EQ(learned(encoder.encode(row)), " lake</s>");
  }
}

TEST(Prompt, LearnsNothingAndKeepsEveryColumn) {
  const Row row = row_of(R"({"question": "the lake", "answer": "42", "n": {"a": [1]}})");
  const RowEncoder encoder = encoder_of("grpo", row, {{"prompt", "question"}});
  EXPECT_EQ(encoder.statement(), "train.jsonl: prompt (columns question), completions are sampled");
  const TokenizedRow tokens = encoder.encode(row);
  EXPECT_EQ(learned(tokens), "");
  EXPECT_EQ(tokenizer().decode(tokens.documents[0].ids, false), "<s>the lake");
  EXPECT_EQ(Json::parse(tokens.columns),
            Json::parse(R"({"answer": "42", "n": {"a": [1]}, "prompt": "the lake"})"));
}

TEST(Prompt, OfMessagesEndsInTheGenerationPrompt) {
  const Row row = row_of(R"({"prompt": [{"role": "user", "content": "a"}]})");
  const TokenizedRow tokens = encoder_of("rloo", row).encode(row);
  const std::string text = "<|im_start|>user\na<|im_end|><|im_start|>assistant\n";
  EXPECT_EQ(tokenizer().decode(tokens.documents[0].ids, false), text);
  EXPECT_EQ(Json::parse(tokens.columns)["prompt"], text);
}

TEST(Formats, AreThoseOfTheObjective) {
  const std::string pair = R"({"prompt": "a", "chosen": "b", "rejected": "c"})";
  EXPECT_EQ(error_of_kind("sft", pair),
            "train.jsonl: no data format fits the columns prompt, chosen, rejected; expected "
            "messages or conversations (messages), or prompt and completion (prompt-completion), "
            "or instruction and output (alpaca), or text (text) for objective.kind = \"sft\" (these are preference, for dpo, kto, "
            "orpo, cpo, reward); name yours with columns = { prompt = \"...\", completion = "
            "\"...\" }");
  EXPECT_EQ(error_of_kind("dpo", R"({"prompt": "a", "completion": "b"})"),
            "train.jsonl: no data format fits the columns prompt, completion; expected chosen and "
            "rejected (preference) for objective.kind = \"dpo\" (these are prompt-completion, for "
            "sft, gkd, distill); name yours with columns = { chosen = \"...\", rejected = "
            "\"...\" }");
  EXPECT_EQ(error_of_kind("dpo", pair, "text"),
            "data.format = \"text\": belongs to objective.kind sft, gkd, distill; with \"dpo\" must "
            "be one of auto, preference");
}

TEST(Formats, OfObjectivesSayWhatIsWrongWithARow) {
  const std::string at = "train.jsonl:17: ";
  EXPECT_EQ(error_of_kind("dpo", R"({"prompt": "a", "chosen": "", "rejected": "c"})"),
            at + "chosen is empty");
  EXPECT_EQ(error_of_kind("dpo", R"({"prompt": "a", "chosen": "b", "rejected": 3})"),
            at + "rejected is of type number: must be a string");
  EXPECT_EQ(error_of_kind("reward", R"({"chosen": "b", "rejected": "c", "margin": "wide"})"),
            at + "margin is of type string: must be a number");
  EXPECT_EQ(error_of_kind("kto", R"({"prompt": "a", "completion": "b", "label": "yes"})"),
            at + "label = \"yes\": must be true or false, or 1 or 0");
  EXPECT_EQ(error_of_kind("grpo", R"({"prompt": ""})"), at + "prompt is empty");
  EXPECT_EQ(error_of_kind("dpo", R"({"chosen": [{"role": "user", "content": "a"}],
                           "rejected": [{"role": "user", "content": "b"}]})"),
            at + "chosen and rejected have no turn in common that could be the prompt");
  EXPECT_EQ(error_of_kind("cpo", R"({"prompt": [{"role": "system", "content": "a"}],
                                     "chosen": [{"role": "user", "content": "b"}],
                                     "rejected": [{"role": "user", "content": "c"}]})"),
            at + "the prompt ends in a turn of \"system\": must be one of the user or of a tool");
}

// ---- texts that are taken whole -----------------------------------------------------------------

std::vector<std::string> texts_of(const TokenizedRow& row) {
  std::vector<std::string> texts;
  for (const Example& document : row.documents) {
    EXPECT_EQ(document.supervised, std::vector<uint8_t>(document.ids.size(), 0));
    texts.push_back(tokenizer().decode(document.ids, false));
  }
  return texts;
}

using Texts = std::vector<std::string>;

TEST(Classification, IsATextOrTwoAsOneInputWithItsLabel) {
  const Row row = row_of(R"({"text": "the lake", "label": "sunny"})");
  const RowEncoder encoder = encoder_of("classify", row);
  EXPECT_EQ(encoder.statement(),
            "train.jsonl: classification (columns text, label), whole texts are classified");
  EXPECT_EQ(texts_of(encoder.encode(row)), Texts{"<s>the lake"});
  EXPECT_EQ(encoder.encode(row).columns, R"({"label":"sunny"})");
  const auto label = [&](const char* value) {
    return encoder.encode(row_of(std::string(R"({"text": "a", "label": )") + value + "}")).columns;
  };
  EXPECT_EQ(label("3"), R"({"label":3})");
  EXPECT_EQ(label("0.5"), R"({"label":0.5})");
  EXPECT_EQ(label("false"), R"({"label":false})");
  EXPECT_EQ(label(R"(["a", "b"])"), R"({"label":["a","b"]})");
  EXPECT_EQ(label("[]"), R"({"label":[]})");
  const Row two = row_of(R"({"text": "the lake", "text_pair": "is sunny", "label": 1})");
  EXPECT_EQ(texts_of(encoder_of("classify", two).encode(two)),
            Texts{tokenizer().decode(tokenizer().encode_pair("the lake", "is sunny").ids, false)});
}

TEST(Pairs, AreTwoDocumentsOrOneInput) {
  const Row row = row_of(R"({"q": "the lake", "a": "is sunny", "score": 0.5})");
  const std::map<std::string, std::string> names = {{"anchor", "q"}, {"positive", "a"}};
  const RowEncoder embed = encoder_of("embed", row, names);
  EXPECT_EQ(embed.statement(),
            "train.jsonl: pairs (columns q, a, score), whole texts are compared");
  EXPECT_EQ(texts_of(embed.encode(row)), (Texts{"<s>the lake", "<s>is sunny"}));
  EXPECT_EQ(embed.encode(row).columns, R"({"label":0.5})");
  EXPECT_EQ(embed.document_name(0, 2), "anchor");
  EXPECT_EQ(embed.document_name(1, 2), "positive");
  EXPECT_EQ(texts_of(encoder_of("cross_encoder", row, names).encode(row)),
            Texts{tokenizer().decode(tokenizer().encode_pair("the lake", "is sunny").ids, false)});
  for (const char* columns : {R"({"sentence1": "a", "sentence2": "b", "label": 1})",
                              R"({"premise": "a", "hypothesis": "b", "label": 1})",
                              R"({"query": "a", "answer": "b", "label": 1})",
                              R"({"question": "a", "answer": "b", "label": 1})"}) {
    const Row other = row_of(columns);
    EXPECT_EQ(texts_of(encoder_of("embed", other).encode(other)), (Texts{"<s>a", "<s>b"}));
  }
}

TEST(Triplets, AreThreeDocumentsOrTheAnchorWithEach) {
  const Row row = row_of(R"({"query": "the lake", "positive": "is sunny", "negative": "a"})");
  const RowEncoder embed = encoder_of("embed", row);
  EXPECT_EQ(embed.format(), "triplets");
  EXPECT_EQ(texts_of(embed.encode(row)), (Texts{"<s>the lake", "<s>is sunny", "<s>a"}));
  EXPECT_EQ(embed.encode(row).columns, "");
  EXPECT_EQ(embed.document_name(2, 3), "negative");
  const RowEncoder together = encoder_of("cross_encoder", row);
  const auto pair = [](const char* second) {
    return tokenizer().decode(tokenizer().encode_pair("the lake", second).ids, false);
  };
  EXPECT_EQ(texts_of(together.encode(row)), (Texts{pair("is sunny"), pair("a")}));
  EXPECT_EQ(together.document_name(0, 2), "positive");
}

TEST(WholeTexts, AreCutBeforeTheirSpecialTokensAreAdded) {
  const std::string text = "the lake is sunny the lake is sunny";
  const Row row = row_of(Json{{"anchor", text}, {"positive", "a"}}.dump());
  const recipes::DataSource source{.path = "train.jsonl", .weight = 1, .columns = {}};
  const auto make = [&](std::optional<int64_t> cut_to) {
    return RowEncoder::make({.kind = "embed", .cut_to = cut_to}, source, row, tokenizer(), {});
  };
  const int64_t whole = std::ssize(tokenizer().encode(text));
  EXPECT_EQ(make({}).encode(row).cut, 0);
  EXPECT_EQ(make(whole).encode(row).cut, 0);
  const TokenizedRow cut = make(3).encode(row);
  EXPECT_EQ(cut.cut, whole - 3);
  EXPECT_EQ(cut.documents[0].ids,
            tokenizer().encode_with_offsets(text, true, Truncation{.max_length = 3}).ids);
  EXPECT_EQ(make(3).rules().on_long_row, recipes::OnLongRow::kTruncate);
  EXPECT_FALSE(make(3).rules().needs_targets);
  EXPECT_NE(make(3).fingerprint(), make(4).fingerprint());
  EXPECT_NE(make(3).fingerprint(), make({}).fingerprint());
}

TEST(WholeTexts, SayWhatIsWrongWithARow) {
  const std::string at = "train.jsonl:17: ";
  EXPECT_EQ(error_of_kind("classify", R"({"text": "", "label": 1})"), at + "text is empty");
  EXPECT_EQ(error_of_kind("classify", R"({"text": 3, "label": 1})"),
            at + "text is of type number: must be a string");
  EXPECT_EQ(error_of_kind("classify", R"({"text": "a", "label": null})"),
            at + "label is missing or null: must be a class (a name or a number) or a number");
  const std::string wrong = ": must be a class (a name or a number), a number, or a list of them";
  EXPECT_EQ(error_of_kind("classify", R"({"text": "a", "label": {"b": 1}})"),
            at + "label = {\"b\":1}" + wrong);
  EXPECT_EQ(error_of_kind("classify", R"({"text": "a", "label": ["b", 1]})"),
            at + "label = [\"b\",1]" + wrong);
  EXPECT_EQ(error_of_kind("classify", R"({"text": "a", "label": ""})"), at + "label = \"\"" + wrong);
  EXPECT_EQ(error_of_kind("embed", R"({"anchor": "a", "positive": "b", "score": [[1]]})"),
            at + "score = [[1]]" + wrong);
  EXPECT_EQ(error_of_kind("embed", R"({"anchor": "a", "positive": "b", "score": 1, "label": 0})"),
            at + "label and score: a row has one of them, not both");
  EXPECT_EQ(error_of_kind("embed", R"({"anchor": "a", "positive": "b", "negative_1": "c"})"),
            at + "has a column negative_1, which a pair has not: with columns anchor and positive, "
                 "and columns = { negative = \"negative_1\" }, the rows are triplets");
  EXPECT_EQ(error_of_kind("embed", R"({"anchor": "a", "positive": "b", "negative": ""})"),
            at + "negative is empty");
  EXPECT_EQ(error_of_kind("classify", R"({"text": "a"})"),
            "train.jsonl: no data format fits the columns text; expected text and label "
            "(classification) for objective.kind = \"classify\" (these are text, for sft, gkd, "
            "distill); name yours with columns = { text = \"...\", label = \"...\" }");
}

}  // namespace
}  // namespace temper::data
