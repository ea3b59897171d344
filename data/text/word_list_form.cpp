#include <utility>

#include "data/text/old_form_readers.h"
#include "data/text/vocabulary_files.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace fs = std::filesystem;

TokenizerDefinition from_word_list(const fs::path& path, const OldSettings& settings) {
  const std::string name = settings.tokenizer_class();
  if (!is_one_of(name, {"", "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"})) {
    settings.fail_class(path, "BertTokenizer, DistilBertTokenizer, ElectraTokenizer");
  }
  std::string text = read_tokenizer_file(path);
  Json vocabulary = read_word_list(text);
  Json accents;
  if (const auto found = settings.config.find("strip_accents"); found != settings.config.end()) {
    accents = *found;
  }
  TokenizerDefinition result{
      .json =
          definition_of({{"type", "WordPiece"},
                         {"unk_token", settings.token("unk_token", "[UNK]")},
                         {"continuing_subword_prefix", "##"},
                         {"max_input_chars_per_word", 100},
                         {"vocab", std::move(vocabulary)}},
                        {{"type", "BertNormalizer"},
                         {"clean_text", true},
                         {"handle_chinese_chars", settings.flag("tokenize_chinese_chars", true)},
                         {"strip_accents", accents},
                         {"lowercase", settings.flag("do_lower_case", true)}},
                        {{"type", "BertPreTokenizer"}},
                        {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}),
      .where = path.string(),
      .source = std::move(text),
      .special_tokens = {}};
  const Json& known = result.json["model"]["vocab"];
  const std::string cls = settings.token("cls_token", "[CLS]");
  const std::string sep = settings.token("sep_token", "[SEP]");
  for (const auto& [token, content] : NamedTokens{{"unk_token", "[UNK]"},
                                                  {"sep_token", sep},
                                                  {"pad_token", "[PAD]"},
                                                  {"cls_token", cls},
                                                  {"mask_token", "[MASK]"}}) {
    if (!known.contains(content)) continue;
    add_token(result.json, content, true);
    result.special_tokens.emplace_back(token, content);
  }
  for (const std::string& token : {cls, sep}) {
    if (!known.contains(token)) throw UserError(path.string() + ": lacks '" + token + "'");
  }
  result.json["post_processor"] = surround_template(
      known, {{"before A", cls}, {"A", ""}, {"after A", sep}, {"B", ""}, {"after B", sep}});
  return result;
}

}  // namespace temper::data
