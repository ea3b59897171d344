#include "data/text/tokenizer_config.h"

#include <algorithm>
#include <map>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

constexpr const char* kNamed[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

Json read_optional(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return Json::object();
  Json value = read_json(path);
  if (!value.is_object()) throw UserError(path.string() + ": must be a JSON object");
  return value;
}

bool is_token(const Json& value) {
  return value.is_string() || (value.is_object() && value.contains("content"));
}

// A token by its name, or with flags of its own.
AddedToken parse_token(const Component& component, const std::map<std::string, AddedToken>& known) {
  AddedToken token;
  if (component.value.is_string()) {
    token.content = component.value.get<std::string>();
    token.normalized = false;
  } else {
    token = AddedToken::parse(component);
  }
  if (const auto found = known.find(token.content); found != known.end()) token = found->second;
  token.special = true;
  return token;
}

bool read_flag(const Json& config, const char* name, const std::string& where) {
  const auto found = config.find(name);
  if (found == config.end() || found->is_null()) return false;
  return Component{config, where}.flag(name);
}

}  // namespace

std::optional<std::string> TokenizerConfig::special_token(const std::string& name) const {
  for (const auto& [key, content] : special_tokens) {
    if (key == name) return content;
  }
  return std::nullopt;
}

TokenizerConfig read_tokenizer_config(
    const std::filesystem::path& directory, const std::vector<AddedToken>& known,
    const std::vector<std::pair<std::string, std::string>>& defaults) {
  const std::filesystem::path path = directory / "tokenizer_config.json";
  const std::string where = path.string();
  Json config = read_optional(path);
  TokenizerConfig result;
  std::map<std::string, AddedToken> flags;
  if (const auto decoder = config.find("added_tokens_decoder"); decoder != config.end()) {
    if (!decoder->is_object()) throw UserError(where + ": added_tokens_decoder must be an object");
    for (const auto& [id, value] : decoder->items()) {
      AddedToken token = AddedToken::parse({value, where + ": added_tokens_decoder[" + id + "]"});
      flags.emplace(token.content, token);
      if (std::find(known.begin(), known.end(), token) == known.end()) {
        result.added_tokens.push_back(std::move(token));
      }
    }
  } else {
    for (const AddedToken& token : known) flags.emplace(token.content, token);
    const Json map = read_optional(directory / "special_tokens_map.json");
    for (const auto& [name, value] : map.items()) config[name] = value;
  }

  for (const auto& [name, content] : defaults) {
    if (!config.contains(name)) config[name] = content;
  }

  const auto name_token = [&](const std::string& name, const Json& value) {
    AddedToken token = parse_token({value, where + ": " + name}, flags);
    result.special_tokens.emplace_back(name, token.content);
    result.added_tokens.push_back(std::move(token));
  };
  for (const char* name : kNamed) {
    const auto value = config.find(name);
    if (value == config.end() || value->is_null()) continue;
    if (!is_token(*value)) {
      throw UserError(where + ": " + name + " must be a string or an object with 'content'");
    }
    name_token(name, *value);
  }
  for (const auto& [name, value] : config.items()) {
    const bool is_named = std::find(std::begin(kNamed), std::end(kNamed), name) != std::end(kNamed);
    if (!is_named && name.ends_with("_token") && is_token(value)) name_token(name, value);
  }
  for (const char* name : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto list = config.find(name);
    if (list == config.end() || !(list->is_array() || list->is_object())) continue;
    for (const auto& [key, value] : list->items()) {
      if (!is_token(value)) continue;
      if (list->is_object()) {
        name_token(key, value);
      } else {
        result.added_tokens.push_back(
            parse_token({value, where + ": " + name + "[" + key + "]"}, flags));
      }
    }
  }
  result.sets_surroundings = config.contains("add_bos_token") || config.contains("add_eos_token");
  result.add_bos = read_flag(config, "add_bos_token", where);
  result.add_eos = read_flag(config, "add_eos_token", where);
  if (const auto side = config.find("truncation_side"); side != config.end() && !side->is_null()) {
    if (*side != "left" && *side != "right") {
      throw UserError(where + ": truncation_side = " + side->dump() +
                      ": must be \"left\" or \"right\"");
    }
    result.truncates_from_left = *side == "left";
  }
  return result;
}

}  // namespace temper::data
