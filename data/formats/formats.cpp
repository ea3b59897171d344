#include <algorithm>

#include "data/formats/format.h"
#include "recipes/diagnostic.h"

namespace temper::data {

using recipes::LossOn;

std::span<const Format> formats() {
  static const std::vector<Format> kFormats = {
      {.name = "messages",
       .required = {{"messages"}, {"conversations"}},
       .optional = {"tools", "chat_template_kwargs", "system"},
       .loss_on = {LossOn::kAssistant, LossOn::kAll},
       .kinds = {"sft", "gkd", "distill"},
       .documents = 1,
       .encode = encode_messages,
       .sentence =
           "a list of {role, content} (or {from, value}), through the model's chat template"},
      {.name = "prompt-completion",
       .required = {{"prompt", "completion"}},
       .optional = {"tools", "chat_template_kwargs"},
       .loss_on = {LossOn::kCompletion, LossOn::kAll},
       .kinds = {"sft", "gkd", "distill"},
       .documents = 1,
       .encode = encode_prompt_completion,
       .sentence = "two strings, or two lists of messages"},
      {.name = "alpaca",
       .required = {{"instruction", "output"}},
       .optional = {"input", "system", "history"},
       .loss_on = {LossOn::kCompletion, LossOn::kAll},
       .kinds = {"sft", "gkd", "distill"},
       .documents = 1,
       .encode = encode_alpaca,
       .sentence = "an instruction, perhaps an input, and the output: strings"},
      {.name = "text",
       .required = {{"text"}},
       .optional = {},
       .loss_on = {LossOn::kAll},
       .kinds = {"sft", "gkd", "distill"},
       .documents = 1,
       .encode = encode_text,
       .sentence = "one string, all of it learned"},
      {.name = "unpaired-preference",
       .required = {{"prompt", "completion", "label"}},
       .optional = {"tools", "chat_template_kwargs"},
       .loss_on = {LossOn::kCompletion},
       .kinds = {"kto"},
       .documents = 1,
       .encode = encode_unpaired_preference,
       .sentence = "two strings, or two lists of messages, and whether the completion is good"},
      {.name = "preference",
       .required = {{"chosen", "rejected"}},
       .optional = {"prompt", "margin", "tools", "chat_template_kwargs"},
       .loss_on = {LossOn::kCompletion},
       .kinds = {"dpo", "kto", "orpo", "cpo", "reward"},
       .documents = 2,
       .encode = encode_preference,
       .sentence =
           "strings or lists of messages; without prompt what both begin with is the prompt"},
      {.name = "prompt",
       .required = {{"prompt"}},
       .optional = {"tools", "chat_template_kwargs"},
       .loss_on = {LossOn::kCompletion},
       .kinds = {"grpo", "rloo", "online_dpo", "ppo", "gkd", "distill"},
       .documents = 1,
       .encode = encode_prompt,
       .sentence = "a string or a list of messages; all other columns are given to the rewards"},
      {.name = "classification",
       .required = {{"text", "label"}},
       .optional = {"text_pair"},
       .loss_on = {LossOn::kAll},
       .kinds = {"classify"},
       .documents = 1,
       .whole_texts = true,
       .encode = encode_classification,
       .sentence = "a text, or two, and what it is: a class, a number, or a list of classes"},
      {.name = "triplets",
       .required = {{"anchor", "positive", "negative"}, {"query", "positive", "negative"}},
       .optional = {"label", "score"},
       .loss_on = {LossOn::kAll},
       .kinds = {"embed", "cross_encoder"},
       .documents = 3,
       .whole_texts = true,
       .encode = encode_triplets,
       .sentence = "a text, one that belongs to it and one that does not"},
      {.name = "pairs",
       .required = {{"anchor", "positive"},
                    {"query", "positive"},
                    {"query", "answer"},
                    {"question", "answer"},
                    {"sentence1", "sentence2"},
                    {"premise", "hypothesis"}},
       .optional = {"label", "score"},
       .loss_on = {LossOn::kAll},
       .kinds = {"embed", "cross_encoder"},
       .documents = 2,
       .whole_texts = true,
       .encode = encode_pairs,
       .sentence = "two texts, perhaps with how well they belong together"},
  };
  return kFormats;
}

const Format* find_format(std::string_view name) {
  const auto all = formats();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const Format& format) { return format.name == name; });
  return found == all.end() ? nullptr : &*found;
}

bool serves(const Format& format, std::string_view kind) {
  return std::find(format.kinds.begin(), format.kinds.end(), kind) != format.kinds.end();
}

const std::vector<std::string_view>* fitting(const Format& format, const Columns& columns) {
  for (const auto& alternative : format.required) {
    if (std::all_of(alternative.begin(), alternative.end(), [&](std::string_view name) {
          return columns.values.contains(columns.name_in_file(name));
        })) {
      return &alternative;
    }
  }
  return nullptr;
}

std::string Columns::name_in_file(std::string_view name) const {
  const auto mapped = names.find(std::string(name));
  return mapped == names.end() ? std::string(name) : mapped->second;
}

const Json* Columns::find(std::string_view name) const {
  const auto found = values.find(name_in_file(name));
  return found == values.end() || found->is_null() ? nullptr : &*found;
}

const std::string& Columns::text(std::string_view name) const {
  const Json* value = find(name);
  const std::string shown = name_in_file(name);
  if (!value) throw UserError(shown + " is missing or null: must be a string");
  if (!value->is_string()) {
    throw UserError(shown + " is of type " + value->type_name() + ": must be a string");
  }
  return value->get_ref<const std::string&>();
}

std::string Columns::text_or_empty(std::string_view name) const {
  return find(name) ? text(name) : std::string();
}

std::string_view loss_on_name(LossOn loss_on) {
  switch (loss_on) {
    case LossOn::kAll:
      return "all";
    case LossOn::kCompletion:
      return "completion";
    case LossOn::kAssistant:
      return "assistant";
    default:
      return "auto";
  }
}

}  // namespace temper::data
