#include "data/formats/format.h"
#include "recipes/diagnostic.h"

namespace temper::data {

std::string with_end_token(const Tokenizer& tokenizer, const std::string& text) {
  const auto id = tokenizer.eos_id();
  if (!id) return text;
  const std::string token = tokenizer.id_to_token(*id);
  if (text.ends_with(token)) return text;
  const std::vector<int32_t> bare = tokenizer.encode("");
  const bool post_processor_ends = !bare.empty() && bare.back() == *id;
  return post_processor_ends ? text : text + token;
}

TokenizedRow encode_text(const FormatContext& context, const Columns& columns) {
  const std::string& text = columns.text("text");
  if (text.empty()) throw UserError(columns.name_in_file("text") + " is empty");
  Example example;
  example.ids = context.tokenizer.encode(with_end_token(context.tokenizer, text));
  example.supervised.assign(example.ids.size(), 1);
  return {.documents = {std::move(example)}, .columns = {}};
}

}  // namespace temper::data
