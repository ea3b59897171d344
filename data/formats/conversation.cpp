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

/// The calls that a function_call's text holds: {"name", "arguments"}, or a list of such.
Json calls_in(const Json& value, const std::string& where) {
  const auto refuse = [&]() -> Json {
    throw UserError(where +
                    ".value of a function_call must be JSON text: {\"name\": ..., "
                    "\"arguments\": {...}}, or a list of such");
  };
  if (!value.is_string()) return refuse();
  Json parsed = parse_json(value.get_ref<const std::string&>(), where + ".value");
  if (parsed.is_object()) parsed = Json::array({std::move(parsed)});
  if (!parsed.is_array() || parsed.empty()) return refuse();
  Json calls = Json::array();
  for (Json& call : parsed) {
    if (!call.is_object() || !call.contains("name") || !call["name"].is_string() ||
        !call.contains("arguments"))
      return refuse();
    calls.push_back({{"type", "function"}, {"function", std::move(call)}});
  }
  return calls;
}

Json converted(const Json& message, const std::string& where, bool with_calls) {
  if (!message.is_object())
    throw UserError(where + " is of type " + message.type_name() +
                    ": must be an object with role and content");
  const bool speaker_form = message.contains("from") && !message.contains("role");
  const bool calls = with_calls && speaker_form && message["from"] == "function_call";
  Json result = Json::object();
  for (const auto& [key, value] : message.items()) {
    if (speaker_form && key == "from") {
      if (!value.is_string())
        throw UserError(where + ".from is of type " + value.type_name() + ": must be a string");
      result["role"] = role_of_speaker(value.get<std::string>(), where);
    } else if (calls && key == "value") {
      result["tool_calls"] = calls_in(value, where);
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

Json read_messages(const FormatContext& context, const Columns& columns, std::string_view column) {
  const std::string name = columns.name_in_file(column);
  const Json* value = columns.find(column);
  if (!value) throw UserError(name + " is missing or null: must be a list of messages");
  if (!value->is_array())
    throw UserError(name + " is of type " + value->type_name() + ": must be a list of messages");
  if (value->empty()) throw UserError(name + " is empty: must have at least one message");
  const bool with_calls = context.chat_template && context.chat_template->mentions("tool_calls");
  Json messages = Json::array();
  for (size_t i = 0; i < value->size(); ++i) {
    messages.push_back(converted((*value)[i], name + "[" + std::to_string(i) + "]", with_calls));
  }
  return messages;
}

Json read_conversation(const FormatContext& context, const Columns& columns) {
  if (columns.find("messages")) return read_messages(context, columns, "messages");
  Json messages = read_messages(context, columns, "conversations");
  const std::string system = columns.text_or_empty("system");
  if (!system.empty() && messages[0]["role"] != "system")
    messages.insert(messages.begin(), Json{{"role", "system"}, {"content", system}});
  return messages;
}

ChatInput make_chat_input(const Columns& columns, Json messages) {
  const auto value_or_text = [&](std::string_view column) -> Json {
    const Json* value = columns.find(column);
    if (!value || !value->is_string()) return value ? *value : Json();
    const std::string& text = value->get_ref<const std::string&>();
    return text.empty() ? Json() : parse_json(text, columns.name_in_file(column));
  };
  return {.messages = std::move(messages),
          .tools = value_or_text("tools"),
          .extra = value_or_text("chat_template_kwargs")};
}

const ChatTemplate& require_template(const FormatContext& context) {
  if (context.chat_template) return *context.chat_template;
  throw UserError(
      "the model has no chat template: add chat_template.jinja to its directory, or use rows of "
      "text or of prompt and completion strings");
}

}  // namespace temper::data
