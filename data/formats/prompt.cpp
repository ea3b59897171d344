// Prompts whose completions are sampled. Nothing is learned of the row itself.
#include "data/formats/completions.h"
#include "data/formats/conversation.h"
#include "recipes/diagnostic.h"

namespace temper::data {

TokenizedRow encode_prompt(const FormatContext& context, const Columns& columns) {
  const Json* prompt = columns.find("prompt");
  Json kept = columns.values;
  kept.erase(columns.name_in_file("prompt"));
  Example example;
  if (prompt && prompt->is_array()) {
    kept["prompt"] = render_prompt(context, columns, read_messages(context, columns, "prompt"));
    example.ids = context.tokenizer.encode(kept["prompt"].get_ref<const std::string&>(),
                                           /*add_special_tokens=*/false);
  } else {
    const std::string& text = columns.text("prompt");
    if (text.empty()) throw UserError(columns.name_in_file("prompt") + " is empty");
    kept["prompt"] = text;
    example.ids = context.tokenizer.encode(text);
  }
  example.supervised.assign(example.ids.size(), 0);
  return {.documents = {std::move(example)}, .columns = kept.dump()};
}

}  // namespace temper::data
