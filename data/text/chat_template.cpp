#include "data/text/chat_template.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include <xxhash.h>

#include "data/text/jinja/interpreter.h"
#include "data/text/jinja/lexer.h"
#include "data/text/jinja/parser.h"
#include "recipes/diagnostic.h"

namespace temper::data {

using Variables = std::vector<std::pair<std::string, jinja::Value>>;

struct ChatTemplate::State {
  std::string name;
  std::string source;
  Variables special_tokens;
  jinja::Template parsed;
  std::string fingerprint;

  static std::shared_ptr<const State> make(std::string source, std::string name,
                                           Variables special_tokens);
};

namespace {

std::string hash(const std::string& source, const Variables& special_tokens) {
  std::string all = source;
  for (const auto& [name, token] : special_tokens) all += '\0' + name + '\0' + token.text();
  const XXH128_hash_t digest = XXH3_128bits(all.data(), all.size());
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, digest);
  std::string hex;
  for (const unsigned char byte : bytes.digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

/// Messages as templates see them: keys without a value dropped, and the reasoning under each name
/// that templates read.
Json prepared_messages(const Json& messages) {
  static constexpr const char* kReasoning[] = {"reasoning_content", "thinking", "reasoning"};
  if (!messages.is_array()) throw UserError("messages must be a list of objects");
  Json prepared = Json::array();
  for (const Json& message : messages) {
    if (!message.is_object())
      throw UserError("each message must be an object with role and content");
    Json kept = Json::object();
    for (const auto& [key, value] : message.items()) {
      if (!value.is_null()) kept[key] = value;
    }
    const auto* found = std::find_if(std::begin(kReasoning), std::end(kReasoning),
                                     [&](const char* name) { return kept.contains(name); });
    if (found != std::end(kReasoning)) {
      const Json reasoning = kept[*found];
      Json aliased = Json::object();
      aliased["thinking"] = reasoning;
      for (const auto& [key, value] : kept.items()) aliased[key] = value;
      aliased["reasoning_content"] = reasoning;
      kept = std::move(aliased);
    }
    prepared.push_back(std::move(kept));
  }
  return prepared;
}

void set(Variables& variables, const std::string& name, jinja::Value value) {
  const auto found = std::find_if(variables.begin(), variables.end(),
                                  [&](const auto& variable) { return variable.first == name; });
  if (found != variables.end())
    found->second = std::move(value);
  else
    variables.emplace_back(name, std::move(value));
}

Variables make_variables(const ChatInput& input, Variables variables) {
  if (!input.tools.is_null() &&
      !(input.tools.is_array() && std::all_of(input.tools.begin(), input.tools.end(),
                                              [](const Json& tool) { return tool.is_object(); }))) {
    throw UserError("tools must be a list of JSON schemas (objects), or null");
  }
  if (!input.extra.is_null() && !input.extra.is_object())
    throw UserError("chat_template_kwargs must be an object");
  set(variables, "documents", jinja::None{});
  if (input.extra.is_object()) {
    for (const auto& [name, value] : input.extra.items()) {
      if (name == "messages" || name == "tools" || name == "add_generation_prompt") {
        throw UserError("chat_template_kwargs must not hold '" + name +
                        "', which has a place of its own");
      }
      set(variables, name, jinja::Value::from_json(value));
    }
  }
  set(variables, "messages", jinja::Value::from_json(prepared_messages(input.messages)));
  set(variables, "tools", jinja::Value::from_json(input.tools));
  set(variables, "add_generation_prompt", input.add_generation_prompt);
  return variables;
}

/// The special tokens of tokenizer_config.json: strings, or objects with a "content".
Variables special_tokens_of(const Json& config) {
  static constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                           "pad_token", "cls_token", "mask_token"};
  Variables tokens;
  for (const char* name : kNames) {
    if (!config.contains(name)) continue;
    const Json& token = config[name];
    if (token.is_string())
      tokens.emplace_back(name, token.get<std::string>());
    else if (token.is_object() && token.contains("content") && token["content"].is_string())
      tokens.emplace_back(name, token["content"].get<std::string>());
  }
  return tokens;
}

/// The template's source in "chat_template": a string, or a list of {name, template}.
std::optional<std::string> select_template(const Json& value, bool with_tools,
                                           const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return std::nullopt;
  const auto named = [&](const std::string& name) -> std::optional<std::string> {
    for (const Json& entry : value) {
      if (entry.is_object() && entry.value("name", "") == name && entry.contains("template") &&
          entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
    return std::nullopt;
  };
  if (!value.is_array())
    throw UserError(where + ": chat_template must be a string or a list of {name, template}");
  auto chosen = with_tools ? named("tool_use") : std::nullopt;
  if (!chosen) chosen = named("default");
  if (!chosen)
    throw UserError(where + ": chat_template has several templates but none is named \"default\"");
  return chosen;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw UserError(path.string() + ": cannot be read");
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const State> state) : state_(std::move(state)) {}

std::shared_ptr<const ChatTemplate::State> ChatTemplate::State::make(std::string source,
                                                                     std::string name,
                                                                     Variables special_tokens) {
  auto state = std::make_shared<State>();
  try {
    state->parsed = jinja::parse(source);
  } catch (const jinja::SyntaxError& error) {
    throw UserError(name + ":" + std::to_string(error.line) + ":" + std::to_string(error.column) +
                    ": " + error.what());
  }
  state->fingerprint = hash(source, special_tokens);
  state->name = std::move(name);
  state->source = std::move(source);
  state->special_tokens = std::move(special_tokens);
  return state;
}

ChatTemplate ChatTemplate::parse(std::string source, std::string name) {
  return ChatTemplate(State::make(std::move(source), std::move(name), {}));
}

std::optional<ChatTemplate> ChatTemplate::load(const std::filesystem::path& directory,
                                               bool with_tools) {
  const auto config_path = directory / "tokenizer_config.json";
  const auto file_path = directory / "chat_template.jinja";
  const Json config =
      std::filesystem::exists(config_path) ? read_json(config_path) : Json::object();
  std::optional<std::string> source;
  std::filesystem::path origin = config_path;
  const auto tools_path = directory / "additional_chat_templates" / "tool_use.jinja";
  if (with_tools && std::filesystem::exists(tools_path)) {
    origin = tools_path;
    source = read_text(tools_path);
  } else if (std::filesystem::exists(file_path)) {
    origin = file_path;
    source = read_text(file_path);
  } else if (config.contains("chat_template")) {
    source = select_template(config["chat_template"], with_tools, config_path.string());
  }
  if (!source) return std::nullopt;
  return ChatTemplate(State::make(std::move(*source), origin.string(), special_tokens_of(config)));
}

RenderedChat ChatTemplate::render(const ChatInput& input) const {
  try {
    jinja::Rendering rendering =
        jinja::render(state_->parsed, make_variables(input, state_->special_tokens));
    return {std::move(rendering.text), std::move(rendering.generation_spans)};
  } catch (const jinja::RenderError& error) {
    throw UserError(state_->name + ":" + std::to_string(error.line) + ": " + error.what());
  } catch (const jinja::Error& error) {
    throw UserError(state_->name + ":1: " + error.what());
  } catch (const UserError& error) {
    throw UserError(state_->name + ":1: " + error.what());
  }
}

bool ChatTemplate::marks_generation() const { return state_->parsed.marks_generation; }
const std::string& ChatTemplate::fingerprint() const { return state_->fingerprint; }
const std::string& ChatTemplate::source() const { return state_->source; }

}  // namespace temper::data
