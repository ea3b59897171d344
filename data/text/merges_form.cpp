#include <utility>

#include "data/text/old_form_readers.h"
#include "data/text/vocabulary_files.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace fs = std::filesystem;

TokenizerDefinition from_vocabulary_and_merges(const fs::path& directory,
                                               const OldSettings& settings) {
  const fs::path path = directory / "vocab.json";
  const std::string name = settings.tokenizer_class();
  const std::string vocabulary_text = read_tokenizer_file(path);
  const std::string merges_text = read_tokenizer_file(directory / "merges.txt");
  Json vocabulary = parse_json(vocabulary_text, path.string());
  if (!vocabulary.is_object()) throw UserError(path.string() + ": must be an object of token: id");
  const bool prefix = settings.flag("add_prefix_space", false);
  const bool is_roberta =
      is_one_of(name, {"RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer"});
  const bool is_qwen = name == "Qwen2Tokenizer";
  if (!is_roberta && !is_qwen && !is_one_of(name, {"", "GPT2Tokenizer", "CodeGenTokenizer"})) {
    settings.fail_class(path, "GPT2Tokenizer, RobertaTokenizer, BartTokenizer, Qwen2Tokenizer");
  }
  TokenizerDefinition result{
      .json = definition_of({{"type", "BPE"},
                             {"vocab", std::move(vocabulary)},
                             {"merges", read_merges_file(merges_text)}},
                            is_qwen ? Json{{"type", "NFC"}} : Json(),
                            is_qwen ? split_and_spell(kQwenPattern) : byte_level_step(prefix, true),
                            byte_level_step(true, true)),
      .where = path.string(),
      .source = vocabulary_text + merges_text,
      .special_tokens = {}};
  const Json& known = result.json["model"]["vocab"];
  result.json["post_processor"] = untrimmed();
  if (is_roberta) {
    for (const auto& [token, content] : NamedTokens{{"bos_token", "<s>"},
                                                    {"eos_token", "</s>"},
                                                    {"unk_token", "<unk>"},
                                                    {"sep_token", "</s>"},
                                                    {"pad_token", "<pad>"},
                                                    {"cls_token", "<s>"},
                                                    {"mask_token", "<mask>"}}) {
      if (!known.contains(content)) continue;
      add_token(result.json, content, true);
      result.special_tokens.emplace_back(token, content);
    }
    const std::string cls = settings.token("cls_token", "<s>");
    const std::string sep = settings.token("sep_token", "</s>");
    for (const std::string& token : {cls, sep}) {
      if (!known.contains(token)) throw UserError(path.string() + ": lacks '" + token + "'");
    }
    result.json["post_processor"] = {{"type", "RobertaProcessing"},
                                     {"sep", Json::array({sep, known[sep]})},
                                     {"cls", Json::array({cls, known[cls]})},
                                     {"trim_offsets", true},
                                     {"add_prefix_space", prefix}};
    return result;
  }
  if (const std::string end = "<|endoftext|>"; known.contains(end)) {
    add_token(result.json, end, true);
    result.special_tokens.emplace_back("eos_token", end);
    if (!is_qwen) result.special_tokens.emplace_back("bos_token", end);
  }
  return result;
}

}  // namespace temper::data
