#include <utility>

#include "data/text/base64.h"
#include "data/text/old_form_readers.h"
#include "data/text/sentencepiece.h"
#include "data/text/vocabulary_files.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

constexpr const char* kMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

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

Json unigram_definition(const SentencePieceModel& model, bool is_t5) {
  Json pieces = Json::array();
  for (const auto& piece : model.pieces) {
    pieces.push_back(Json::array({piece.text, static_cast<double>(piece.score)}));
  }
  Json steps = Json::array();
  if (!model.charsmap.empty()) {
    steps.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(model.charsmap)}});
  }
  const Json spaces = {
      {"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", "always"}, {"split", true}};
  Json pre_tokenizer = spaces;
  if (is_t5) {  // no blanks at all
    pre_tokenizer = {{"type", "Sequence"},
                     {"pretokenizers", Json::array({{{"type", "WhitespaceSplit"}}, spaces})}};
  } else {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}});
  }
  return definition_of({{"type", "Unigram"},
                        {"unk_id", model.unknown_id},
                        {"vocab", std::move(pieces)},
                        {"byte_fallback", model.byte_fallback}},
                       {{"type", "Sequence"}, {"normalizers", std::move(steps)}},
                       std::move(pre_tokenizer), spaces);
}

Json bpe_definition(const SentencePieceModel& model, const OldSettings& settings) {
  Json vocabulary = Json::object();
  for (size_t id = 0; id < model.pieces.size(); ++id) append(vocabulary, model.pieces[id].text, id);
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}};
  // "legacy" puts the mark before every text; later versions not after a control token, Gemma
  // nowhere.
  const bool is_gemma = settings.tokenizer_class() == "GemmaTokenizer";
  const bool legacy = is_gemma || settings.flag("legacy", true);
  const bool prefix = !is_gemma && settings.flag("add_prefix_space", true);
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

}  // namespace

TokenizerDefinition from_sentencepiece(const fs::path& path, std::string bytes,
                                       const OldSettings& settings) {
  const SentencePieceModel model = parse_sentencepiece(bytes, path.string());
  const std::string name = settings.tokenizer_class();
  if (!is_one_of(name, {"", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer",
                        "MistralTokenizer", "T5Tokenizer"})) {
    settings.fail_class(path, "LlamaTokenizer, GemmaTokenizer, T5Tokenizer");
  }
  const bool is_bpe = model.kind == SentencePieceModel::Kind::kBpe;
  if (!is_bpe && model.kind != SentencePieceModel::Kind::kUnigram) {
    throw UserError(path.string() + ": neither a BPE nor a Unigram model");
  }
  const bool is_t5 = name == "T5Tokenizer";
  TokenizerDefinition result{
      .json = is_bpe ? bpe_definition(model, settings) : unigram_definition(model, is_t5),
      .where = path.string(),
      .source = std::move(bytes),
      .special_tokens = named_pieces(model)};
  Json ids = Json::object();  // of the pieces that surround a text
  for (const int64_t id : {model.bos_id, model.eos_id}) {
    if (const std::string text = model.text(id); !text.empty()) ids[text] = id;
  }
  using Type = SentencePieceModel::Type;
  for (const auto& piece : model.pieces) {
    const bool special = piece.type == Type::kUnknown || piece.type == Type::kControl ||
                         (name == "GemmaTokenizer" && piece.text == "<mask>");
    if (special || piece.type == Type::kUserDefined) add_token(result.json, piece.text, special);
  }
  if (is_t5) {
    // 100 tokens for spans, the last one first.
    for (int64_t i = settings.config.value("extra_ids", 100); i-- > 0;) {
      add_token(result.json, "<extra_id_" + std::to_string(i) + ">", true);
    }
    const std::string eos = model.text(model.eos_id);
    if (!eos.empty()) {
      result.json["post_processor"] =
          surround_template(ids, {{"A", ""}, {"after A", eos}, {"B", ""}, {"after B", eos}},
                            /*type_of_second=*/0);
    }
  } else if (is_bpe && !model.text(model.bos_id).empty()) {
    const std::string bos = model.text(model.bos_id);
    result.json["post_processor"] =
        surround_template(ids, {{"before A", bos}, {"A", ""}, {"before B", bos}, {"B", ""}});
  }
  return result;
}

}  // namespace temper::data
