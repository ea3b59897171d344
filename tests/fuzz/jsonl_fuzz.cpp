// JSONL rows: read, recognised and tokenized as each family of objectives would.
#include <cstdlib>
#include <optional>

#include "data/formats/row_encoder.h"
#include "data/readers/reader.h"
#include "recipes/diagnostic.h"
#include "tests/fuzz/driver.h"

namespace temper::fuzz {
namespace {

const data::Tokenizer& tokenizer() {
  static const data::Tokenizer loaded = [] {
    const char* source = std::getenv("TEMPER_SOURCE_DIR");
    return data::Tokenizer::load(std::filesystem::path(source ? source : ".") /
                                 "tests/parity/golden/chat/tokenizer");
  }();
  return loaded;
}

const data::ChatTemplate& chat_template() {
  static const auto parsed = data::ChatTemplate::parse(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls }}{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}",
      "chat");
  return parsed;
}

void run_as(const char* kind, const std::filesystem::path& file) {
  std::optional<data::RowEncoder> encoder;
  const auto reader = data::open_reader(file);
  data::Row row;
  for (bool more = true; more;) {
    try {
      more = reader->next(row);
      if (!more) break;
      if (!encoder)
        encoder = data::RowEncoder::make({.kind = kind, .cut_to = 5}, {.path = "x", .weight = 1, .columns = {}}, row,
                                         tokenizer(), chat_template());
      encoder->encode(row);
    } catch (const UserError&) {  // a bad row; the next one follows
    }
  }
}

void run(std::string_view, const std::filesystem::path& file) {
  for (const char* kind : {"sft", "dpo", "kto", "grpo", "classify", "embed", "cross_encoder"})
    run_as(kind, file);
}

}  // namespace

Target target() {
  return {
      .suffix = ".jsonl",
      .seeds =
          {"{\"text\": \"one\"}\n{\"text\": \"zw\\u00f6lf\", \"id\": 3}\n\n{\"text\": 5}\n",
           R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
"tools": "[]", "chat_template_kwargs": {"x": true}})"
           "\n",
           R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"}, {"from": "observation", "value": "1"}, {"from": "gpt", "value": "b"}], "system": "s"})"
           "\n",
           R"({"prompt": "a", "completion": "b"})"
           "\r\n"
           R"({"prompt": [{"role": "user", "content": "é"}], "completion": [{"role": "assistant", "content": ""}]})",
           R"({"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]})",
           R"({"prompt": "a", "chosen": "a b c", "rejected": [], "margin": 1})",
           R"({"text": "a long text of words", "text_pair": "b", "label": ["c", 1.5]})",
           R"({"anchor": "a", "positive": "a long text of words", "negative": "b", "score": 0.5})"},
      .words = {"{\"text\": \"",
                "\"}\n",
                "null",
                "true",
                "[]",
                "{}",
                "1e400",
                "-0",
                "\\u0000",
                "\\ud83d",
                "\\ude00",
                "\xEF\xBB\xBF",
                "\xFF",
                "[[[[[[[[",
                "\"role\": ",
                "\"content\": ",
                "\"from\": ",
                "\"value\": ",
                "\"messages\": ",
                ", ",
                ": ",
                "\n",
                "123456789012345678901234567890",
                "<s>",
                "</s>"},
      .run = run};
}

}  // namespace temper::fuzz
