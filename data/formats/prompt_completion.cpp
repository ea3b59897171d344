// Prompts with completions, TRL 1.16's rule: the completion begins where the tokens of the prompt
// alone and of prompt plus completion part.
#include <algorithm>

#include "data/formats/conversation.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

struct Tokenized {
  std::vector<int32_t> prompt, whole;
};

Tokenized tokenize_strings(const FormatContext& context, const Columns& columns) {
  const std::string& prompt = columns.text("prompt");
  const std::string& completion = columns.text("completion");
  if (completion.empty()) throw UserError(columns.name_in_file("completion") + " is empty");
  return {context.tokenizer.encode(prompt),
          context.tokenizer.encode(prompt + with_end_token(context.tokenizer, completion))};
}

Tokenized tokenize_messages(const FormatContext& context, const Columns& columns) {
  const ChatTemplate& chat_template = require_template(context);
  Json messages = read_messages(columns, "prompt");
  ChatInput prompt = make_chat_input(columns, messages);
  prompt.add_generation_prompt = true;
  for (Json& message : read_messages(columns, "completion")) messages.push_back(std::move(message));
  const ChatInput whole = make_chat_input(columns, std::move(messages));
  return {context.tokenizer.encode(chat_template.render(prompt).text, false),
          context.tokenizer.encode(chat_template.render(whole).text, false)};
}

}  // namespace

TokenizedRow encode_prompt_completion(const FormatContext& context, const Columns& columns) {
  const Json* prompt = columns.find("prompt");
  Tokenized tokens = prompt && prompt->is_array() ? tokenize_messages(context, columns)
                                                  : tokenize_strings(context, columns);
  const size_t boundary = size_t(std::mismatch(tokens.prompt.begin(), tokens.prompt.end(),
                                               tokens.whole.begin(), tokens.whole.end())
                                     .second -
                                 tokens.whole.begin());
  Example example{.ids = std::move(tokens.whole), .supervised = {}};
  example.supervised.assign(example.ids.size(), 1);
  if (context.loss_on == recipes::LossOn::kCompletion)
    std::fill_n(example.supervised.begin(), boundary, uint8_t{0});
  return {.documents = {std::move(example)}, .columns = {}};
}

}  // namespace temper::data
