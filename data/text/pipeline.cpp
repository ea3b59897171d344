#include "data/text/pipeline.h"

#include <algorithm>
#include <string>
#include <utility>

#include "data/text/passage.h"
#include "data/text/unicode.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// Offsets are 32 bits wide, and byte-level text is up to twice as long as what it spells.
constexpr size_t kLongestText = size_t{1} << 30;

// A text of one token without an id, which shows what surrounds a text.
Part stand_in() {
  return {special_encoding(std::vector{kNoToken}, std::vector<std::string>(1), 0), {}};
}

}  // namespace

// Takes only the ids of tokens, unless the rest shall be tracked.
struct Pipeline::Writer {
  Encoding& encoding;
  bool track;
  int32_t words = 0;

  void put(int32_t id, std::string token, Span original) {
    encoding.ids.push_back(id);
    describe(std::move(token), original);
  }
  // The next token whose id is there already.
  void describe(std::string token, Span original) {
    encoding.tokens.push_back(std::move(token));
    encoding.offsets.emplace_back(original.begin, original.end);
    encoding.words.push_back(words);
  }
};

void Pipeline::find_surroundings() {
  const std::vector<int32_t> ids = finish({stand_in()}, /*add_special_tokens=*/true).ids;
  const auto text = std::find(ids.begin(), ids.end(), kNoToken);
  before.assign(ids.begin(), text);
  after.assign(text + 1, ids.end());
}

std::vector<int32_t> Pipeline::encode_ids(std::string_view text, bool add_special_tokens) const {
  Encoding encoding;
  Writer writer{encoding, /*track=*/false};
  if (add_special_tokens) encoding.ids = before;
  if (is_valid_utf8(text)) {
    put_tokens(text, writer);
  } else {
    put_tokens(repair_utf8(text), writer);
  }
  if (add_special_tokens) encoding.ids.insert(encoding.ids.end(), after.begin(), after.end());
  return std::move(encoding.ids);
}

Encoding Pipeline::encode(const std::vector<std::string_view>& texts, bool add_special_tokens,
                          std::optional<Truncation> truncation) const {
  std::vector<Part> parts;
  for (const std::string_view text : texts) {
    parts.push_back(encode_part(text, static_cast<int32_t>(parts.size())));
  }
  if (truncation) {
    const std::vector<Part> stand_ins(texts.size(), stand_in());
    const auto special =
        static_cast<int64_t>(finish(stand_ins, add_special_tokens).ids.size() - texts.size());
    if (truncation->max_length < special) {
      throw UserError("truncation: max_length " + std::to_string(truncation->max_length) +
                      " is less than the " + std::to_string(special) + " special tokens");
    }
    truncation->max_length -= special;
    truncate(parts[0].encoding, parts.size() == 1 ? nullptr : &parts[1].encoding, *truncation);
  }
  return finish(std::move(parts), add_special_tokens);
}

void Pipeline::put_tokens(std::string_view text, Writer& writer) const {
  if (text.size() > kLongestText) {
    throw UserError("a text of " + std::to_string(text.size()) +
                    " bytes: at most 1 GiB can be encoded at once; split it");
  }
  std::vector<int32_t>& ids = writer.encoding.ids;
  ids.reserve(ids.size() + text.size() / 3);
  const auto put_added = [&](int32_t id, Span original, std::string_view content) {
    if (!writer.track) return ids.push_back(id);
    writer.put(id, std::string(content), original);
    ++writer.words;
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
    Passage passage(content, piece.span.begin, writer.track);
    if (normalizer) normalizer(passage);
    added.split(passage.text(), /*normalized=*/true, inner);
    for (const Piece& part : inner) {
      if (part.id) {
        put_added(*part.id, passage.original(part.span), passage.text(part.span));
      } else if (inner.size() == 1) {
        put_words(passage, writer);
      } else {
        Passage slice = passage.slice(part.span);
        put_words(slice, writer);
      }
    }
  }
}

void Pipeline::put_words(Passage& passage, Writer& writer) const {
  thread_local std::vector<Span> spans;
  std::vector<int32_t>& ids = writer.encoding.ids;
  pre_tokenizer(passage);
  for (const Span word : passage.words()) {
    const size_t first = ids.size();
    spans.clear();
    words.encode(passage.text(word), ids, writer.track ? &spans : nullptr);
    for (size_t i = 0; i < spans.size(); ++i) {
      const Span span{word.begin + spans[i].begin, word.begin + spans[i].end};
      writer.describe(words.spelling(ids[first + i], passage.text(span)), passage.original(span));
    }
    ++writer.words;
  }
}

Part Pipeline::encode_part(std::string_view text, int32_t type_id) const {
  Encoding encoding;
  Writer writer{encoding, /*track=*/true};
  if (is_valid_utf8(text)) {
    put_tokens(text, writer);
  } else {
    std::vector<uint32_t> origin;
    put_tokens(repair_utf8(text, &origin), writer);
    for (auto& [begin, end] : encoding.offsets) {
      begin = origin[begin];
      end = origin[end];
    }
  }
  encoding.type_ids.assign(encoding.ids.size(), type_id);
  encoding.special_tokens_mask.assign(encoding.ids.size(), 0);
  encoding.attention_mask.assign(encoding.ids.size(), 1);
  return {std::move(encoding), text};
}

Encoding Pipeline::finish(std::vector<Part> parts, bool add_special_tokens) const {
  if (post_processor) post_processor(parts, add_special_tokens);
  std::vector<Encoding> pieces;
  for (Part& part : parts) pieces.push_back(std::move(part.encoding));
  return concatenate(std::move(pieces));
}

}  // namespace temper::data
