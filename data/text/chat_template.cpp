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

namespace {

constexpr const char* kDefault = "default";
constexpr const char* kToolUse = "tool_use";

/// A template as it was found: its name among several, and where it stands.
struct Source {
  std::string name, text, where;
};

}  // namespace

struct ChatTemplate::State {
  std::vector<Source> sources;
  std::vector<jinja::Template> parsed;  // of each source
  Variables special_tokens;
  std::string fingerprint;

  /// Of "default" and "tool_use"; the rest is not used.
  static std::shared_ptr<const State> make(std::vector<Source> sources, Variables special_tokens);
  /// The one for a chat with or without tools.
  size_t choose(bool with_tools) const;
};

namespace {

std::string hash(const std::vector<Source>& sources, const Variables& special_tokens) {
  std::string all;
  for (const Source& source : sources)
    all += source.name + '\0' + std::to_string(source.text.size()) + '\0' + source.text;
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

/// What "chat_template" holds: a string, or a list of {name, template}.
std::vector<Source> read_key(const Json& value, const std::string& where) {
  if (value.is_null()) return {};
  if (value.is_string()) return {{kDefault, value.get<std::string>(), where}};
  const auto is_text = [](const Json& entry, const char* key) {
    return entry.is_object() && entry.contains(key) && entry[key].is_string();
  };
  const bool listed =
      value.is_array() && std::all_of(value.begin(), value.end(), [&](const Json& entry) {
        return is_text(entry, "name") && is_text(entry, "template");
      });
  if (!listed)
    throw UserError(where + ": chat_template must be a string or a list of {name, template}");
  std::vector<Source> sources;
  for (const Json& entry : value) {
    const std::string name = entry["name"].get<std::string>();
    sources.push_back({name, entry["template"].get<std::string>(), where + ":" + name});
  }
  return sources;
}

/// "chat_template.jinja:3:14: "
std::string at(const Source& source, int line, int column) {
  return source.where + ":" + std::to_string(line) + ":" + std::to_string(column) + ": ";
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw UserError(path.string() + ": cannot be read");
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// chat_template.jinja, and additional_chat_templates/<name>.jinja.
std::vector<Source> read_files(const std::filesystem::path& directory) {
  std::vector<Source> sources;
  const auto add = [&](const std::string& name, const std::filesystem::path& file) {
    if (std::filesystem::exists(file)) sources.push_back({name, read_text(file), file.string()});
  };
  add(kDefault, directory / "chat_template.jinja");
  for (const char* name : {kDefault, kToolUse})
    add(name, directory / "additional_chat_templates" / (std::string(name) + ".jinja"));
  return sources;
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const State> state) : state_(std::move(state)) {}

std::shared_ptr<const ChatTemplate::State> ChatTemplate::State::make(std::vector<Source> sources,
                                                                     Variables special_tokens) {
  auto state = std::make_shared<State>();
  for (Source& source : sources) {
    if (source.name != kDefault && source.name != kToolUse) continue;
    try {
      state->parsed.push_back(jinja::parse(source.text));
    } catch (const jinja::SyntaxError& error) {
      throw UserError(at(source, error.line, error.column) + error.what());
    }
    state->sources.push_back(std::move(source));
  }
  state->fingerprint = hash(state->sources, special_tokens);
  state->special_tokens = std::move(special_tokens);
  return state;
}

size_t ChatTemplate::State::choose(bool with_tools) const {
  const auto named = [&](std::string_view name) {
    return std::find_if(sources.begin(), sources.end(),
                        [&](const Source& source) { return source.name == name; });
  };
  auto found = with_tools ? named(kToolUse) : sources.end();
  if (found == sources.end()) found = named(kDefault);
  if (found == sources.end())
    throw UserError("the model has several chat templates, but none is named \"default\"");
  return size_t(found - sources.begin());
}

ChatTemplate ChatTemplate::parse(std::string source, std::string name) {
  return ChatTemplate(State::make({{kDefault, std::move(source), std::move(name)}}, {}));
}

std::optional<ChatTemplate> ChatTemplate::load(const std::filesystem::path& directory) {
  const auto config_path = directory / "tokenizer_config.json";
  const Json config =
      std::filesystem::exists(config_path) ? read_json(config_path) : Json::object();
  std::vector<Source> sources = read_files(directory);
  if (sources.empty() && config.contains("chat_template"))
    sources = read_key(config["chat_template"], config_path.string());
  if (sources.empty()) return std::nullopt;
  return ChatTemplate(State::make(std::move(sources), special_tokens_of(config)));
}

RenderedChat ChatTemplate::render(const ChatInput& input) const {
  const size_t chosen = state_->choose(!input.tools.is_null());
  const Source& source = state_->sources[chosen];
  const jinja::Template& parsed = state_->parsed[chosen];
  try {
    jinja::Rendering rendering =
        jinja::render(parsed, make_variables(input, state_->special_tokens));
    return {std::move(rendering.text), std::move(rendering.generation_spans),
            parsed.marks_generation};
  } catch (const jinja::RenderError& error) {
    throw UserError(at(source, error.at.line, error.at.column) + error.what());
  } catch (const jinja::Error& error) {  // of the input
    throw UserError(source.where + ": " + error.what());
  } catch (const UserError& error) {
    throw UserError(source.where + ": " + error.what());
  }
}

bool ChatTemplate::mentions(std::string_view name) const {
  return std::any_of(state_->sources.begin(), state_->sources.end(), [&](const Source& source) {
    return source.text.find(name) != std::string::npos;
  });
}

const std::string& ChatTemplate::fingerprint() const { return state_->fingerprint; }

}  // namespace temper::data
