#pragma once

#include <filesystem>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "data/io/json.h"

/// What the readers of old tokenizer files share: their settings, and the components of the
/// tokenizer.json that they make.
namespace temper::data {

using NamedTokens = std::vector<std::pair<std::string, std::string>>;

/// What tokenizer_config.json says about a tokenizer that is not written out.
struct OldSettings {
  Json config = Json::object();
  std::string where;

  explicit OldSettings(const std::filesystem::path& directory);
  /// Without the suffix that only says which implementation it was.
  std::string tokenizer_class() const;
  bool flag(const char* name, bool otherwise) const;
  std::string token(const char* name, const char* otherwise) const;
  [[noreturn]] void fail_class(const std::filesystem::path& file, const char* known) const;
};

bool is_one_of(const std::string& name, std::initializer_list<const char*> names);
/// Throws UserError for a file that cannot be read.
std::string read_tokenizer_file(const std::filesystem::path& path);

Json definition_of(Json model, Json normalizer, Json pre_tokenizer, Json decoder);
void add_token(Json& definition, const std::string& content, bool special);
/// TemplateProcessing of pieces like "before A", "A", "after B": those of A alone make the form for
/// a single text.
Json surround_template(const Json& vocabulary, const NamedTokens& pieces, int type_of_second = 1);
Json byte_level_step(bool add_prefix_space, bool use_regex);
Json split_and_spell(const std::string& pattern);
/// A post-processor that changes nothing.
Json untrimmed();
/// How Qwen's tokenizers cut a text.
extern const std::string kQwenPattern;

}  // namespace temper::data
