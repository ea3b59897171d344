#include "data/text/old_forms.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "data/text/base64.h"
#include "data/text/sentencepiece.h"
#include "data/text/vocabulary_files.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;
using NamedTokens = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw UserError(path.string() + ": cannot read: " + std::strerror(errno) +
                    "; a model directory needs this file for its tokenizer");
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What tokenizer_config.json says about a tokenizer that is not written out.
struct Settings {
  Json config = Json::object();
  std::string where;

  explicit Settings(const fs::path& directory)
      : where((directory / "tokenizer_config.json").string()) {
    if (fs::exists(where)) config = read_json(where);
    if (!config.is_object()) throw UserError(where + ": must be a JSON object");
  }
  /// Without the suffix that only says which implementation it was.
  std::string tokenizer_class() const {
    const auto found = config.find("tokenizer_class");
    if (found == config.end() || !found->is_string()) return "";
    auto name = found->get<std::string>();
    if (name.ends_with("Fast")) name.resize(name.size() - 4);
    return name == "PreTrainedTokenizer" || name == "TokenizersBackend" ? "" : name;
  }
  bool flag(const char* name, bool otherwise) const {
    const auto found = config.find(name);
    if (found == config.end() || found->is_null()) return otherwise;
    if (!found->is_boolean()) throw UserError(where + ": " + name + " must be true or false");
    return found->get<bool>();
  }
  std::string token(const char* name, const char* otherwise) const {
    const auto found = config.find(name);
    if (found == config.end()) return otherwise;
    if (found->is_string()) return found->get<std::string>();
    if (found->is_object()) return found->value("content", otherwise);
    return otherwise;
  }
  [[noreturn]] void fail_class(const fs::path& file, const char* known) const {
    throw UserError(file.string() + ": tokenizer_class '" + tokenizer_class() +
                    "' is not supported without a tokenizer.json (there are " + known +
                    "); write one with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
  }
};

bool is_one_of(const std::string& name, std::initializer_list<const char*> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
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

void add_token(Json& definition, const std::string& content, bool special, bool lstrip = false) {
  definition["added_tokens"].push_back({{"content", content},
                                        {"single_word", false},
                                        {"lstrip", lstrip},
                                        {"rstrip", false},
                                        {"normalized", false},
                                        {"special", special}});
}

// TemplateProcessing of [before] A [after] and [before] A [between] B [after].
Json surround_template(const Json& vocabulary, const NamedTokens& pieces) {
  Json result = {{"type", "TemplateProcessing"},
                 {"single", Json::array()},
                 {"pair", Json::array()},
                 {"special_tokens", Json::object()}};
  for (const auto& [name, content] : pieces) {
    const int type = name == "B" || name == "after B" ? 1 : 0;
    const bool is_text = name == "A" || name == "B";
    const Json piece = {{is_text ? "Sequence" : "SpecialToken",
                         {{"id", is_text ? name : content}, {"type_id", type}}}};
    result["pair"].push_back(piece);
    if (type == 0) result["single"].push_back(piece);
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

// ---- SentencePiece

NamedTokens named_pieces(const SentencePieceModel& model) {
  NamedTokens named;
  const auto name = [&](const char* token, int64_t id) {
    if (const std::string text = model.text(id); !text.empty()) named.emplace_back(token, text);
  };
  name("bos_token", model.bos_id);
  name("eos_token", model.eos_id);
  name("unk_token", model.unknown_id);
  name("pad_token", model.pad_id);
  return named;
}

Json unigram_definition(const SentencePieceModel& model) {
  Json pieces = Json::array();
  for (const auto& piece : model.pieces) {
    pieces.push_back(Json::array({piece.text, static_cast<double>(piece.score)}));
  }
  Json steps = Json::array();
  if (!model.charsmap.empty()) {
    steps.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(model.charsmap)}});
  }
  steps.push_back({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}});
  const Json spaces = {
      {"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", "always"}, {"split", true}};
  return definition_of({{"type", "Unigram"},
                        {"unk_id", model.unknown_id},
                        {"vocab", std::move(pieces)},
                        {"byte_fallback", model.byte_fallback}},
                       {{"type", "Sequence"}, {"normalizers", std::move(steps)}}, spaces, spaces);
}

Json bpe_definition(const SentencePieceModel& model, const Settings& settings) {
  Json vocabulary = Json::object();
  for (size_t id = 0; id < model.pieces.size(); ++id) append(vocabulary, model.pieces[id].text, id);
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}};
  // "legacy" puts the mark before every text; later versions not after a control token.
  const bool legacy = settings.flag("legacy", true);
  const bool prefix = settings.flag("add_prefix_space", true);
  Json normalizer;
  Json pre_tokenizer;
  if (legacy) {
    Json steps = Json::array();
    if (prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kMark}});
    steps.push_back(replace);
    normalizer = {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
  } else {
    pre_tokenizer = {{"type", "Metaspace"},
                     {"replacement", kMark},
                     {"prepend_scheme", prefix ? "first" : "never"},
                     {"split", false}};
  }
  Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  if (prefix) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return definition_of({{"type", "BPE"},
                        {"unk_token", model.text(model.unknown_id)},
                        {"fuse_unk", true},
                        {"byte_fallback", model.byte_fallback},
                        {"vocab", std::move(vocabulary)},
                        {"merges", merges_of_scores(model)}},
                       std::move(normalizer), std::move(pre_tokenizer),
                       {{"type", "Sequence"}, {"decoders", std::move(decoders)}});
}

TokenizerDefinition from_sentencepiece(const fs::path& path, std::string bytes,
                                       const Settings& settings) {
  const SentencePieceModel model = parse_sentencepiece(bytes, path.string());
  const std::string name = settings.tokenizer_class();
  if (!is_one_of(name, {"", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer",
                        "MistralTokenizer", "T5Tokenizer"})) {
    settings.fail_class(path, "LlamaTokenizer, T5Tokenizer");
  }
  const bool is_bpe = model.kind == SentencePieceModel::Kind::kBpe;
  if (!is_bpe && model.kind != SentencePieceModel::Kind::kUnigram) {
    throw UserError(path.string() + ": neither a BPE nor a Unigram model");
  }
  TokenizerDefinition result{
      .json = is_bpe ? bpe_definition(model, settings) : unigram_definition(model),
      .where = path.string(),
      .source = std::move(bytes),
      .special_tokens = named_pieces(model)};
  Json ids = Json::object();  // of the pieces that surround a text
  for (const int64_t id : {model.bos_id, model.eos_id}) {
    if (const std::string text = model.text(id); !text.empty()) ids[text] = id;
  }
  using Type = SentencePieceModel::Type;
  for (const auto& piece : model.pieces) {
    const bool special = piece.type == Type::kUnknown || piece.type == Type::kControl;
    if (special || piece.type == Type::kUserDefined) add_token(result.json, piece.text, special);
  }
  if (name == "T5Tokenizer") {
    // 100 tokens for spans, the last one first.
    for (int64_t i = settings.config.value("extra_ids", 100); i-- > 0;) {
      add_token(result.json, "<extra_id_" + std::to_string(i) + ">", true);
    }
    const std::string eos = model.text(model.eos_id);
    if (!eos.empty()) {
      result.json["post_processor"] =
          surround_template(ids, {{"A", ""}, {"after A", eos}, {"B", ""}, {"after B", eos}});
    }
  } else if (is_bpe && !model.text(model.bos_id).empty()) {
    const std::string bos = model.text(model.bos_id);
    result.json["post_processor"] =
        surround_template(ids, {{"before A", bos}, {"A", ""}, {"after B", bos}, {"B", ""}});
  }
  return result;
}

// ---- tiktoken

// The patterns of OpenAI's encodings, and of those that followed them.
constexpr const char* kContractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
const std::string kCl100k = std::string(kContractions) +
                            R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
                            R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kQwen = std::string(kContractions) +
                          R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
                          R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::string kO200k =
    std::string(R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)") +
    kContractions +
    R"(?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" +
    kContractions + R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json tiktoken_pre_tokenizer(const std::string& file) {
  if (is_one_of(file, {"gpt2.tiktoken", "r50k_base.tiktoken", "p50k_base.tiktoken",
                       "multilingual.tiktoken"})) {
    return byte_level_step(false, true);
  }
  return split_and_spell(file.starts_with("qwen")    ? kQwen
                         : file.starts_with("o200k") ? kO200k
                                                     : kCl100k);
}

TokenizerDefinition from_tiktoken(const fs::path& path, std::string text) {
  auto [vocabulary, merges] = vocabulary_of_ranks(text, path.string());
  TokenizerDefinition result{
      .json = definition_of({{"type", "BPE"},
                             {"ignore_merges", true},
                             {"vocab", std::move(vocabulary)},
                             {"merges", std::move(merges)}},
                            nullptr, tiktoken_pre_tokenizer(path.filename().string()),
                            byte_level_step(true, true)),
      .where = path.string(),
      .source = std::move(text),
      .special_tokens = {}};
  result.json["post_processor"] = untrimmed();
  return result;
}

// ---- vocab.json and merges.txt

TokenizerDefinition from_vocabulary_and_merges(const fs::path& directory,
                                               const Settings& settings) {
  const fs::path path = directory / "vocab.json";
  const std::string name = settings.tokenizer_class();
  const std::string vocabulary_text = read_file(path);
  const std::string merges_text = read_file(directory / "merges.txt");
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
                            is_qwen ? split_and_spell(kQwen) : byte_level_step(prefix, true),
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
      add_token(result.json, content, true, content == "<mask>");
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

// ---- vocab.txt

TokenizerDefinition from_word_list(const fs::path& path, const Settings& settings) {
  const std::string name = settings.tokenizer_class();
  if (!is_one_of(name, {"", "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"})) {
    settings.fail_class(path, "BertTokenizer, DistilBertTokenizer, ElectraTokenizer");
  }
  std::string text = read_file(path);
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

std::optional<fs::path> find_tiktoken(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (entry.path().extension() == ".tiktoken") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found.empty() ? std::nullopt : std::optional(found.front());
}

// Tokens that old saves keep beside the vocabulary: content to id.
void append_added_tokens(const fs::path& directory, Json& definition) {
  const fs::path path = directory / "added_tokens.json";
  if (!fs::exists(path)) return;
  const Json added = read_json(path);
  std::vector<std::pair<int64_t, std::string>> tokens;
  for (const auto& [content, id] : added.items()) {
    if (!id.is_number_integer())
      throw UserError(path.string() + ": must be an object of token: id");
    tokens.emplace_back(id.get<int64_t>(), content);
  }
  std::sort(tokens.begin(), tokens.end());
  for (const auto& [id, content] : tokens) add_token(definition, content, false);
}

TokenizerDefinition read_old_form(const fs::path& directory) {
  const Settings settings(directory);
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    const fs::path path = directory / name;
    if (!fs::exists(path)) continue;
    std::string bytes = read_file(path);
    // Llama 3 calls its ranks tokenizer.model too; those are lines of text.
    return looks_like_ranks(bytes) ? from_tiktoken(path, std::move(bytes))
                                   : from_sentencepiece(path, std::move(bytes), settings);
  }
  if (fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt")) {
    return from_vocabulary_and_merges(directory, settings);
  }
  if (fs::exists(directory / "vocab.txt")) {
    return from_word_list(directory / "vocab.txt", settings);
  }
  if (const auto ranks = find_tiktoken(directory)) return from_tiktoken(*ranks, read_file(*ranks));
  throw UserError((directory / "tokenizer.json").string() +
                  ": cannot read: " + std::strerror(ENOENT) +
                  "; a model directory needs this file for its tokenizer, or tokenizer.model, "
                  "vocab.json and merges.txt, vocab.txt or a .tiktoken file");
}

}  // namespace

TokenizerDefinition read_definition(const fs::path& directory) {
  const fs::path path = directory / "tokenizer.json";
  if (!fs::exists(path)) {
    TokenizerDefinition result = read_old_form(directory);
    append_added_tokens(directory, result.json);
    result.source += result.json["normalizer"].dump() + result.json["pre_tokenizer"].dump() +
                     result.json["added_tokens"].dump();
    return result;
  }
  std::string text = read_file(path);
  Json json = parse_json(text, path.string());
  return {.json = std::move(json),
          .where = path.string(),
          .source = std::move(text),
          .special_tokens = {}};
}

}  // namespace temper::data
