// Prompts with completions, TRL 1.16's rule: the completion begins where the tokens of the prompt
// alone and of prompt plus completion part. Alpaca's rows are brought into that form.
#include <utility>

#include "data/formats/completions.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

TokenizedRow encode_prompted(const FormatContext& context, const Columns& columns,
                             const Prompted& prompted) {
  TokenizedRow row{.documents = tokenize_completions(context, columns, prompted), .columns = {}};
  if (context.loss_on == recipes::LossOn::kAll) {
    for (Example& document : row.documents) document.supervised.assign(document.ids.size(), 1);
  }
  return row;
}

using Exchange = std::pair<std::string, std::string>;

/// Earlier questions with their answers: [[question, answer], ...].
std::vector<Exchange> read_history(const Columns& columns) {
  const Json* value = columns.find("history");
  std::vector<Exchange> history;
  if (!value) return history;
  const auto is_pair = [](const Json& item) {
    return item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string();
  };
  for (const Json& item : value->is_array() ? *value : Json::array({*value})) {
    if (!is_pair(item)) {
      throw UserError(columns.name_in_file("history") + " must be a list of [question, answer]");
    }
    history.emplace_back(item[0].get<std::string>(), item[1].get<std::string>());
  }
  return history;
}

}  // namespace

TokenizedRow encode_prompt_completion(const FormatContext& context, const Columns& columns) {
  return encode_prompted(context, columns, read_answered(context, columns));
}

TokenizedRow encode_alpaca(const FormatContext& context, const Columns& columns) {
  const std::string input = columns.text_or_empty("input");
  const std::string question = columns.text("instruction") + (input.empty() ? "" : "\n" + input);
  const std::string& answer = columns.text("output");
  if (answer.empty()) throw UserError(columns.name_in_file("output") + " is empty");
  const std::string system = columns.text_or_empty("system");
  Prompted prompted{
      .chat = context.chat_template != nullptr, .prompt = {}, .completions = {answer}};
  const auto add = [&](const char* role, const std::string& content) {
    prompted.prompt_turns.push_back({{"role", role}, {"content", content}});
    prompted.prompt += content + "\n";
  };
  if (!system.empty()) add("system", system);
  for (const auto& [earlier_question, earlier_answer] : read_history(columns)) {
    add("user", earlier_question);
    add("assistant", earlier_answer);
  }
  add("user", question);
  prompted.completion_turns = {Json::array({{{"role", "assistant"}, {"content", answer}}})};
  return encode_prompted(context, columns, prompted);
}

}  // namespace temper::data
