#include "data/text/tokenizer.h"

#include <algorithm>

#include <xxhash.h>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "data/text/added_tokens.h"
#include "data/text/component.h"
#include "data/text/decoder.h"
#include "data/text/normalizer.h"
#include "data/text/old_forms.h"
#include "data/text/passage.h"
#include "data/text/post_processor.h"
#include "data/text/pre_tokenizer.h"
#include "data/text/tokenizer_config.h"
#include "data/text/unicode.h"
#include "data/text/word_encoder.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// Offsets are 32 bits wide, and byte-level text is up to twice as long as what it spells.
constexpr size_t kLongestText = size_t{1} << 30;

std::string hex_hash(const std::string& text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  std::string result;
  for (const unsigned char byte : bytes.digest) {
    result += "0123456789abcdef"[byte >> 4];
    result += "0123456789abcdef"[byte & 15];
  }
  return result;
}

}  // namespace

struct Tokenizer::State {
  PreTokenizer pre_tokenizer;
  WordEncoder words;
  AddedTokens added;
  Normalizer normalizer;
  PostProcessor post_processor;
  Decoder decoder;
  std::vector<Blanks> blanks;  // of the model's tokens, by id
  TokenizerConfig config;
  std::optional<int32_t> bos_id, eos_id, pad_id;
  std::vector<AddedToken> added_later;  // load()'s own
  std::vector<int32_t> added_ids;
  std::string fingerprint;

  void add_tokens(const std::vector<AddedToken>& tokens);
  void add_later(const std::vector<std::string>& contents);
  void apply_config(const std::string& where);
  const Vocabulary& vocabulary() const { return words.model().vocabulary(); }
  std::optional<int32_t> model_id(const std::string& token) const;
  std::optional<int32_t> find(const std::string& token) const;

  Tokens encode(std::string_view text, bool add_special_tokens, bool track) const;
  void encode_passage(Passage& passage, bool track, Tokens& tokens) const;
};

void Tokenizer::State::add_tokens(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& token : tokens) {
    added.add(token, model_id(token.content), vocabulary().entries());
  }
}

// As `tokenizers` adds special tokens: an added token stays as it is, one of the model's becomes
// special where it is.
void Tokenizer::State::add_later(const std::vector<std::string>& contents) {
  for (const std::string& content : contents) {
    if (added.token_to_id(content)) continue;
    const bool is_new = !model_id(content);
    added_later.push_back({.content = content, .normalized = false, .special = true});
    add_tokens({added_later.back()});
    if (is_new) added_ids.push_back(*added.token_to_id(content));
  }
}

std::optional<int32_t> Tokenizer::State::model_id(const std::string& token) const {
  const int32_t id = vocabulary().find(token);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

std::optional<int32_t> Tokenizer::State::find(const std::string& token) const {
  const std::optional<int32_t> id = added.token_to_id(token);
  return id ? id : model_id(token);
}

// After all tokens have their ids: which are bos, eos and pad, and what surrounds a text.
void Tokenizer::State::apply_config(const std::string& where) {
  const auto id_of = [&](const char* name) -> std::optional<int32_t> {
    const std::optional<std::string> token = config.special_token(name);
    return token ? find(*token) : std::nullopt;
  };
  bos_id = id_of("bos_token");
  eos_id = id_of("eos_token");
  pad_id = id_of("pad_token");
  if (!config.sets_surroundings) return;
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  if (config.add_bos && !bos_id) {
    throw UserError(where + ": add_bos_token is true but there is no bos_token");
  }
  if (config.add_eos && !eos_id) {
    throw UserError(where + ": add_eos_token is true but there is no eos_token");
  }
  if (config.add_bos) before.push_back(*bos_id);
  if (config.add_eos) after.push_back(*eos_id);
  post_processor = surround(std::move(before), std::move(after));
}

Tokenizer::Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Tokenizer Tokenizer::load(const std::filesystem::path& directory,
                          const std::vector<std::string>& added) {
  const TokenizerDefinition source = read_definition(directory);
  const Json& definition = source.json;
  const Component root{definition, source.where};
  if (const std::string version = root.text("version"); version != "1.0") {
    root.fail("version is '" + version + "'; only 1.0 is known");
  }
  const Json nothing;
  const auto part = [&](const char* name) {
    const auto found = definition.find(name);
    return Component{found == definition.end() ? nothing : *found, root.where + ": " + name};
  };
  // Truncation and padding of the file are left to the data loader, as transformers leaves them to
  // each call.
  PreTokenizer pre_tokenizer = build_pre_tokenizer(part("pre_tokenizer"));
  const bool spells_bytes = pre_tokenizer.spells_bytes;
  auto state = std::make_shared<State>(
      State{.pre_tokenizer = std::move(pre_tokenizer),
            .words = {build_model({root.field("model"), root.where + ": model"}), spells_bytes},
            .added = {},
            .normalizer = build_normalizer(part("normalizer")),
            .post_processor = build_post_processor(part("post_processor")),
            .decoder = build_decoder(part("decoder")),
            .blanks = {},
            .config = {},
            .bos_id = {},
            .eos_id = {},
            .pad_id = {},
            .added_later = {},
            .added_ids = {},
            .fingerprint = {}});
  std::vector<AddedToken> tokens;
  if (definition.contains("added_tokens") && !definition["added_tokens"].is_null()) {
    for (const Component& token : root.children("added_tokens")) {
      tokens.push_back(AddedToken::parse(token));
    }
  }
  state->add_tokens(tokens);
  state->config = read_tokenizer_config(directory, tokens, source.special_tokens);
  state->add_tokens(state->config.added_tokens);
  state->add_later(added);
  state->added.prepare(state->normalizer);
  state->apply_config((directory / "tokenizer_config.json").string());
  for (int64_t id = 0; id < state->vocabulary().end_id(); ++id) {
    const std::string* token = state->vocabulary().token(static_cast<int32_t>(id));
    state->blanks.push_back(token == nullptr ? Blanks{} : count_blanks(*token));
  }

  std::string decisive = source.source;
  std::vector<AddedToken> beside = state->config.added_tokens;
  beside.insert(beside.end(), state->added_later.begin(), state->added_later.end());
  for (const AddedToken& token : beside) {
    decisive += '\0' + token.content + '\0';
    for (const bool flag :
         {token.single_word, token.lstrip, token.rstrip, token.normalized, token.special}) {
      decisive += flag ? '1' : '0';
    }
  }
  for (const bool flag :
       {state->config.sets_surroundings, state->config.add_bos, state->config.add_eos}) {
    decisive += flag ? '1' : '0';
  }
  for (const auto& id : {state->bos_id, state->eos_id})
    decisive += std::to_string(id.value_or(-1)) + ",";
  state->fingerprint = hex_hash(decisive);
  return Tokenizer(std::move(state));
}

void Tokenizer::State::encode_passage(Passage& passage, bool track, Tokens& tokens) const {
  thread_local std::vector<Span> spans;
  pre_tokenizer(passage);
  for (const Span word : passage.words()) {
    const size_t before = tokens.ids.size();
    spans.clear();
    words.encode(passage.text(word), tokens.ids, track ? &spans : nullptr);
    for (size_t i = 0; i < spans.size(); ++i) {
      tokens.offsets.push_back(
          passage.original({word.begin + spans[i].begin, word.begin + spans[i].end}));
      tokens.blanks.push_back(blanks[static_cast<size_t>(tokens.ids[before + i])]);
    }
  }
}

Tokens Tokenizer::State::encode(std::string_view text, bool add_special_tokens, bool track) const {
  if (text.size() > kLongestText) {
    throw UserError("a text of " + std::to_string(text.size()) +
                    " bytes: at most 1 GiB can be encoded at once; split it");
  }
  Tokens tokens{.text = text, .ids = {}, .offsets = {}, .blanks = {}};
  tokens.ids.reserve(text.size() / 3);
  const auto put_added = [&](int32_t id, Span original, std::string_view content) {
    tokens.ids.push_back(id);
    if (!track) return;
    tokens.offsets.push_back(original);
    tokens.blanks.push_back(count_blanks(content));
  };
  std::vector<Piece> outer;
  std::vector<Piece> inner;
  added.split(text, /*normalized=*/false, outer);
  for (const Piece& piece : outer) {
    const std::string_view content = text.substr(piece.span.begin, piece.span.size());
    if (piece.id) {
      put_added(*piece.id, piece.span, content);
      continue;
    }
    Passage passage(content, piece.span.begin, track);
    if (normalizer) normalizer(passage);
    added.split(passage.text(), /*normalized=*/true, inner);
    for (const Piece& part : inner) {
      if (part.id) {
        put_added(*part.id, passage.original(part.span), passage.text(part.span));
      } else if (inner.size() == 1) {
        encode_passage(passage, track, tokens);
      } else {
        Passage slice = passage.slice(part.span);
        encode_passage(slice, track, tokens);
      }
    }
  }
  if (post_processor) post_processor(tokens, add_special_tokens);
  return tokens;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  if (is_valid_utf8(text)) return state_->encode(text, add_special_tokens, false).ids;
  return state_->encode(repair_utf8(text), add_special_tokens, false).ids;
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  std::vector<uint32_t> origin;
  const bool valid = is_valid_utf8(text);
  if (!valid) repaired = repair_utf8(text, &origin);
  Tokens tokens = state_->encode(valid ? text : repaired, add_special_tokens, true);
  Encoding encoding{.ids = std::move(tokens.ids), .offsets = {}};
  encoding.offsets.reserve(tokens.offsets.size());
  for (const Span span : tokens.offsets) {
    encoding.offsets.emplace_back(valid ? span.begin : origin[span.begin],
                                  valid ? span.end : origin[span.end]);
  }
  return encoding;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* token = state_->added.spelling(id);
    if (token == nullptr) token = state_->vocabulary().token(id);
    if (token == nullptr) continue;
    if (skip_special_tokens && state_->added.is_special(*token)) continue;
    tokens.push_back(*token);
  }
  if (state_->decoder) {
    state_->decoder(tokens);
    return join(tokens, "");
  }
  std::string text;
  for (const std::string& token : tokens) {
    if (&token != &tokens.front()) text += ' ';
    text += token;
  }
  return text;
}

int64_t Tokenizer::size() const {
  return std::max(state_->vocabulary().end_id(), state_->added.end_id());
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return state_->find(std::string(token));
}

std::string Tokenizer::id_to_token(int32_t id) const {
  if (const std::string* spelling = state_->added.spelling(id)) return *spelling;
  const std::string* token = state_->vocabulary().token(id);
  return token == nullptr ? "" : *token;
}

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* token = state_->added.find(id);
  return token != nullptr && token->special;
}

const std::vector<int32_t>& Tokenizer::added_ids() const { return state_->added_ids; }

void Tokenizer::add_to_files(const std::filesystem::path& directory) const {
  if (state_->added_later.empty()) return;
  const auto flags = [](const AddedToken& token) {
    return Json{{"content", token.content},       {"single_word", token.single_word},
                {"lstrip", token.lstrip},         {"rstrip", token.rstrip},
                {"normalized", token.normalized}, {"special", token.special}};
  };
  const std::filesystem::path tokenizer = directory / "tokenizer.json";
  const std::filesystem::path config = directory / "tokenizer_config.json";
  Json definition = read_definition(directory).json;
  Json settings = std::filesystem::exists(config) ? read_json(config) : Json::object();
  const bool listed = settings.contains("added_tokens_decoder");
  Json& tokens = definition["added_tokens"];
  if (tokens.is_null()) tokens = Json::array();
  // Readers number what they find in order, so what tokenizer_config.json adds comes first.
  std::vector<AddedToken> missing = state_->config.added_tokens;
  missing.insert(missing.end(), state_->added_later.begin(), state_->added_later.end());
  for (const AddedToken& token : missing) {
    const bool known = std::any_of(tokens.begin(), tokens.end(), [&](const Json& entry) {
      return entry.value("content", "") == token.content;
    });
    if (known) continue;
    const int32_t id = *state_->added.token_to_id(token.content);
    Json entry = {{"id", id}};
    entry.update(flags(token));
    tokens.push_back(std::move(entry));
    if (listed) settings["added_tokens_decoder"][std::to_string(id)] = flags(token);
  }
  write_file_atomically(tokenizer, dump_json(definition));
  if (listed) write_file_atomically(config, dump_json(settings));
}

std::optional<int32_t> Tokenizer::bos_id() const { return state_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return state_->eos_id; }
std::optional<int32_t> Tokenizer::pad_id() const { return state_->pad_id; }

const std::vector<std::pair<std::string, std::string>>& Tokenizer::special_tokens() const {
  return state_->config.special_tokens;
}

const std::string& Tokenizer::fingerprint() const { return state_->fingerprint; }

}  // namespace temper::data
