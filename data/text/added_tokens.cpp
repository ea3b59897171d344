#include "data/text/added_tokens.h"

#include <algorithm>

#include "data/text/unicode.h"

namespace temper::data {

namespace {

size_t character_before(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && continues_character(text[at])) --at;
  return at;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8(text, character_before(text, text.size())).value);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8(text, 0).value);
}

size_t whitespace_begin(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t at = character_before(text, end);
    if (!is_whitespace(decode_utf8(text, at).value)) break;
    end = at;
  }
  return end;
}

size_t whitespace_end(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodePoint c = decode_utf8(text, begin);
    if (!is_whitespace(c.value)) break;
    begin += c.size;
  }
  return begin;
}

}  // namespace

AddedToken AddedToken::parse(const Component& component) {
  const bool special = component.flag("special", false);
  return {.content = component.text("content"),
          .single_word = component.flag("single_word", false),
          .lstrip = component.flag("lstrip", false),
          .rstrip = component.flag("rstrip", false),
          .normalized = component.flag("normalized", !special),
          .special = special};
}

void AddedTokens::add(const AddedToken& token, std::optional<int32_t> known,
                      int64_t model_entries) {
  if (token.content.empty()) return;
  int32_t id = 0;
  if (const auto found = ids_.find(token.content); found != ids_.end()) {
    id = found->second;
  } else if (known) {
    id = *known;
  } else {
    int64_t next = model_entries;
    for (const auto& [content, other] : ids_) next = std::max<int64_t>(next, other + 1);
    id = static_cast<int32_t>(next);
  }
  ids_[token.content] = id;
  tokens_[id] = token;
  if (token.special) special_.insert(token.content);
}

void AddedTokens::prepare(const Normalizer& normalizer) {
  for (const auto& [id, token] : tokens_) {
    spellings_[id] = token.content;
    if (!token.normalized) {
      raw_.add(token.content, id);
      continue;
    }
    Passage pattern(token.content, 0, false);
    if (normalizer) normalizer(pattern);
    if (!pattern.text().empty()) normalized_.add(pattern.text(), id);
    spellings_[id] = pattern.text();
  }
}

void AddedTokens::split(std::string_view text, bool normalized, std::vector<Piece>& pieces) const {
  const Matcher& matcher = normalized ? normalized_ : raw_;
  pieces.clear();
  const auto put = [&](size_t begin, size_t end, std::optional<int32_t> id) {
    if (begin == end) return;
    pieces.push_back({{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}, id});
  };
  size_t done = 0;
  for (size_t at = 0; at < text.size() && !matcher.is_empty();) {
    const auto match = matcher.match(text, at);
    if (!match) {
      ++at;
      continue;
    }
    size_t begin = at;
    auto [end, id] = *match;
    at = end;
    const AddedToken& token = tokens_.at(id);
    // A match inside a word is dropped, not tried again shorter.
    if (token.single_word &&
        (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = std::max(whitespace_begin(text, begin), done);
    if (token.rstrip) end = whitespace_end(text, end);
    if (done < begin) put(done, begin, std::nullopt);
    put(begin, end, id);
    done = end;
  }
  put(done, text.size(), std::nullopt);
}

std::optional<int32_t> AddedTokens::token_to_id(const std::string& content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second;
}

const std::string* AddedTokens::spelling(int32_t id) const {
  const auto found = spellings_.find(id);
  return found == spellings_.end() ? nullptr : &found->second;
}

int64_t AddedTokens::end_id() const { return tokens_.empty() ? 0 : tokens_.rbegin()->first + 1; }

void AddedTokens::Matcher::add(std::string_view pattern, int32_t id) {
  begins_[static_cast<uint8_t>(pattern[0])] = true;
  uint32_t node = 0;
  for (const char byte : pattern) {
    auto& next = nodes_[node].next;
    const auto found = std::find_if(next.begin(), next.end(),
                                    [&](const auto& branch) { return branch.first == byte; });
    if (found != next.end()) {
      node = found->second;
      continue;
    }
    const auto created = static_cast<uint32_t>(nodes_.size());
    next.emplace_back(byte, created);
    nodes_.emplace_back();
    node = created;
  }
  if (nodes_[node].id < 0) nodes_[node].id = id;
}

std::optional<std::pair<size_t, int32_t>> AddedTokens::Matcher::match(std::string_view text,
                                                                      size_t at) const {
  if (!begins_[static_cast<uint8_t>(text[at])]) return std::nullopt;
  std::optional<std::pair<size_t, int32_t>> longest;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto& next = nodes_[node].next;
    const auto found = std::find_if(next.begin(), next.end(),
                                    [&](const auto& branch) { return branch.first == text[i]; });
    if (found == next.end()) break;
    node = found->second;
    if (nodes_[node].id >= 0) longest = {i + 1, nodes_[node].id};
  }
  return longest;
}

}  // namespace temper::data
