#include "data/text/tokenizer.h"

#include <algorithm>

#include <xxhash.h>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "data/text/component.h"
#include "data/text/decoder.h"
#include "data/text/old_forms.h"
#include "data/text/pipeline.h"
#include "data/text/tokenizer_config.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

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
  Pipeline pipeline;
  Decoder decoder;
  std::optional<Truncation> truncation;
  std::optional<Padding> padding;
  TokenizerConfig config;
  std::optional<int32_t> bos_id, eos_id, pad_id;
  std::vector<AddedToken> added_later;  // load()'s own
  std::vector<int32_t> added_ids;
  std::string fingerprint;

  void add_tokens(const std::vector<AddedToken>& tokens);
  void add_later(const std::vector<std::string>& contents);
  void apply_config(const std::string& where);
  const Vocabulary& vocabulary() const { return pipeline.words.model().vocabulary(); }
  std::optional<int32_t> model_id(const std::string& token) const;
  std::optional<int32_t> find(const std::string& token) const;
};

void Tokenizer::State::add_tokens(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& token : tokens) {
    pipeline.added.add(token, model_id(token.content), vocabulary().entries());
  }
}

// As `tokenizers` adds special tokens: an added token stays as it is, one of the model's becomes
// special where it is.
void Tokenizer::State::add_later(const std::vector<std::string>& contents) {
  for (const std::string& content : contents) {
    if (pipeline.added.token_to_id(content)) continue;
    const bool is_new = !model_id(content);
    added_later.push_back({.content = content, .normalized = false, .special = true});
    add_tokens({added_later.back()});
    if (is_new) added_ids.push_back(*pipeline.added.token_to_id(content));
  }
}

std::optional<int32_t> Tokenizer::State::model_id(const std::string& token) const {
  const int32_t id = vocabulary().find(token);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

std::optional<int32_t> Tokenizer::State::find(const std::string& token) const {
  const std::optional<int32_t> id = pipeline.added.token_to_id(token);
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
  if (config.add_bos && !bos_id) {
    throw UserError(where + ": add_bos_token is true but there is no bos_token");
  }
  if (config.add_eos && !eos_id) {
    throw UserError(where + ": add_eos_token is true but there is no eos_token");
  }
  std::vector<SpecialToken> before;
  std::vector<SpecialToken> after;
  if (config.add_bos) before.emplace_back(*config.special_token("bos_token"), *bos_id);
  if (config.add_eos) after.emplace_back(*config.special_token("eos_token"), *eos_id);
  pipeline.post_processor = surround(before, after);
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
  Normalizer normalizer = build_normalizer(part("normalizer"));
  PreTokenizer pre_tokenizer = build_pre_tokenizer(part("pre_tokenizer"));
  const bool spells_bytes = pre_tokenizer.spells_bytes;
  WordEncoder words(build_model({root.field("model"), root.where + ": model"}), spells_bytes);
  PostProcessor post_processor = build_post_processor(part("post_processor"));
  Decoder decoder = build_decoder(part("decoder"));
  const auto truncation = parse_truncation(part("truncation"));
  const auto padding = parse_padding(part("padding"));
  auto state =
      std::make_shared<State>(State{.pipeline = {.added = {},
                                                 .normalizer = std::move(normalizer),
                                                 .pre_tokenizer = std::move(pre_tokenizer),
                                                 .words = std::move(words),
                                                 .post_processor = std::move(post_processor),
                                                 .before = {},
                                                 .after = {}},
                                    .decoder = std::move(decoder),
                                    .truncation = truncation,
                                    .padding = padding,
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
  state->pipeline.added.prepare(state->pipeline.normalizer);
  state->apply_config((directory / "tokenizer_config.json").string());
  state->pipeline.find_surroundings();

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

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return state_->pipeline.encode_ids(text, add_special_tokens);
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, bool add_special_tokens,
                                        const std::optional<Truncation>& truncation) const {
  return state_->pipeline.encode({text}, add_special_tokens, truncation);
}

Encoding Tokenizer::encode_pair(std::string_view first, std::string_view second,
                                bool add_special_tokens,
                                const std::optional<Truncation>& truncation) const {
  return state_->pipeline.encode({first, second}, add_special_tokens, truncation);
}

const std::optional<Truncation>& Tokenizer::truncation() const { return state_->truncation; }
const std::optional<Padding>& Tokenizer::padding() const { return state_->padding; }

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* token = state_->pipeline.added.spelling(id);
    if (token == nullptr) token = state_->vocabulary().token(id);
    if (token == nullptr) continue;
    if (skip_special_tokens && state_->pipeline.added.is_special(*token)) continue;
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
  return std::max(state_->vocabulary().end_id(), state_->pipeline.added.end_id());
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return state_->find(std::string(token));
}

std::string Tokenizer::id_to_token(int32_t id) const {
  if (const std::string* spelling = state_->pipeline.added.spelling(id)) return *spelling;
  const std::string* token = state_->vocabulary().token(id);
  return token == nullptr ? "" : *token;
}

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* token = state_->pipeline.added.find(id);
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
    const int32_t id = *state_->pipeline.added.token_to_id(token.content);
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

bool Tokenizer::truncates_from_left() const {
  const bool of_file = state_->truncation && state_->truncation->from_left;
  return state_->config.truncates_from_left.value_or(of_file);
}

const std::string& Tokenizer::fingerprint() const { return state_->fingerprint; }

}  // namespace temper::data
