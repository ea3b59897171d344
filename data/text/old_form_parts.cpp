#include "data/text/old_form_parts.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace fs = std::filesystem;

OldSettings::OldSettings(const fs::path& directory)
    : where((directory / "tokenizer_config.json").string()) {
  if (fs::exists(where)) config = read_json(where);
  if (!config.is_object()) throw UserError(where + ": must be a JSON object");
}

std::string OldSettings::tokenizer_class() const {
  const auto found = config.find("tokenizer_class");
  if (found == config.end() || !found->is_string()) return "";
  auto name = found->get<std::string>();
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name == "PreTrainedTokenizer" || name == "TokenizersBackend" ? "" : name;
}

bool OldSettings::flag(const char* name, bool otherwise) const {
  const auto found = config.find(name);
  if (found == config.end() || found->is_null()) return otherwise;
  if (!found->is_boolean()) throw UserError(where + ": " + name + " must be true or false");
  return found->get<bool>();
}

std::string OldSettings::token(const char* name, const char* otherwise) const {
  const auto found = config.find(name);
  if (found == config.end()) return otherwise;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object()) return found->value("content", otherwise);
  return otherwise;
}

void OldSettings::fail_class(const fs::path& file, const char* known) const {
  throw UserError(file.string() + ": tokenizer_class '" + tokenizer_class() +
                  "' is not supported without a tokenizer.json (there are " + known +
                  "); write one with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
}

bool is_one_of(const std::string& name, std::initializer_list<const char*> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string read_tokenizer_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw UserError(path.string() + ": cannot read: " + std::strerror(errno) +
                    "; a model directory needs this file for its tokenizer");
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

Json definition_of(Json model, Json normalizer, Json pre_tokenizer, Json decoder) {
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", std::move(normalizer)},
          {"pre_tokenizer", std::move(pre_tokenizer)},
          {"post_processor", nullptr},
          {"decoder", std::move(decoder)},
          {"model", std::move(model)}};
}

void add_token(Json& definition, const std::string& content, bool special) {
  definition["added_tokens"].push_back({{"content", content},
                                        {"single_word", false},
                                        {"lstrip", false},
                                        {"rstrip", false},
                                        {"normalized", false},
                                        {"special", special}});
}

Json surround_template(const Json& vocabulary, const NamedTokens& pieces, int type_of_second) {
  Json result = {{"type", "TemplateProcessing"},
                 {"single", Json::array()},
                 {"pair", Json::array()},
                 {"special_tokens", Json::object()}};
  for (const auto& [name, content] : pieces) {
    const bool is_second = name.ends_with('B');
    const int type = is_second ? type_of_second : 0;
    const bool is_text = name == "A" || name == "B";
    const Json piece = {{is_text ? "Sequence" : "SpecialToken",
                         {{"id", is_text ? name : content}, {"type_id", type}}}};
    result["pair"].push_back(piece);
    if (!is_second) result["single"].push_back(piece);
    if (!is_text) {
      result["special_tokens"][content] = {{"id", content},
                                           {"ids", Json::array({vocabulary.at(content)})},
                                           {"tokens", Json::array({content})}};
    }
  }
  return result;
}

Json byte_level_step(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json split_and_spell(const std::string& pattern) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", pattern}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            byte_level_step(false, false)}}};
}

Json untrimmed() {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", true},
          {"trim_offsets", false},
          {"use_regex", true}};
}

const std::string kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace temper::data
