#include "data/formats/conversation.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

/// Speakers of the from/value form, as the roles of chat templates.
constexpr std::pair<std::string_view, std::string_view> kSpeakers[] = {
    {"system", "system"},
    {"human", "user"},
    {"user", "user"},
    {"gpt", "assistant"},
    {"assistant", "assistant"},
    {"model", "assistant"},
    {"chatgpt", "assistant"},
    {"function_call", "assistant"},
    {"tool", "tool"},
    {"observation", "tool"},
    {"function_response", "tool"},
    {"tool_response", "tool"},
};

std::string role_of_speaker(const std::string& speaker, const std::string& where) {
  const auto found = std::find_if(std::begin(kSpeakers), std::end(kSpeakers),
                                  [&](const auto& row) { return row.first == speaker; });
  if (found != std::end(kSpeakers)) return std::string(found->second);
  std::vector<std::string> names;
  for (const auto& row : kSpeakers) names.emplace_back(row.first);
  throw UserError(where + ".from = \"" + speaker + "\": must be one of " + join(names));
}

Json converted(const Json& message, const std::string& where) {
  if (!message.is_object())
    throw UserError(where + " is of type " + message.type_name() +
                    ": must be an object with role and content");
  const bool speaker_form = message.contains("from") && !message.contains("role");
  Json result = Json::object();
  for (const auto& [key, value] : message.items()) {
    if (speaker_form && key == "from") {
      if (!value.is_string())
        throw UserError(where + ".from is of type " + value.type_name() + ": must be a string");
      result["role"] = role_of_speaker(value.get<std::string>(), where);
    } else {
      result[speaker_form && key == "value" ? "content" : key] = value;
    }
  }
  if (!result.contains("role") || !result["role"].is_string())
    throw UserError(where + " has no role: must be an object with role and content");
  const bool has_content = result.contains("content") && !result["content"].is_null();
  if (has_content && !result["content"].is_string() && !result["content"].is_array()) {
    throw UserError(where + ".content is of type " + result["content"].type_name() +
                    ": must be a string or a list of parts");
  }
  if (!has_content && !(result.contains("tool_calls") && !result["tool_calls"].is_null())) {
    throw UserError(where + " has neither content nor tool_calls");
  }
  return result;
}

}  // namespace

Json read_messages(const Columns& columns, std::string_view column) {
  const std::string name = columns.name_in_file(column);
  const Json* value = columns.find(column);
  if (!value) throw UserError(name + " is missing or null: must be a list of messages");
  if (!value->is_array())
    throw UserError(name + " is of type " + value->type_name() + ": must be a list of messages");
  if (value->empty()) throw UserError(name + " is empty: must have at least one message");
  Json messages = Json::array();
  for (size_t i = 0; i < value->size(); ++i) {
    messages.push_back(converted((*value)[i], name + "[" + std::to_string(i) + "]"));
  }
  return messages;
}

ChatInput make_chat_input(const Columns& columns, Json messages) {
  ChatInput input;
  input.messages = std::move(messages);
  if (const Json* tools = columns.find("tools")) {
    input.tools = tools->is_string() ? parse_json(tools->get_ref<const std::string&>(),
                                                  columns.name_in_file("tools"))
                                     : *tools;
  }
  if (const Json* extra = columns.find("chat_template_kwargs")) input.extra = *extra;
  return input;
}

const ChatTemplate& require_template(const FormatContext& context) {
  if (context.chat_template) return *context.chat_template;
  throw UserError(
      "the model has no chat template: add chat_template.jinja to its directory, or use rows of "
      "text or of prompt and completion strings");
}

}  // namespace temper::data
