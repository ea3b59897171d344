#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "data/text/byte_fallback.h"
#include "data/text/merge_table.h"
#include "data/text/model.h"
#include "data/text/unicode.h"

/// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909): a word's characters are merged pair
/// by pair, best rank first and from left to right, until no known pair is left.
namespace temper::data {

namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // SentencePiece's U+2581

struct Symbol {
  int32_t id;
  int32_t previous;
  int32_t next;
  uint32_t size;  // bytes of the word; 0 once it has been merged into its left neighbour
};

struct Candidate {
  int32_t rank;
  int32_t position;
  int32_t id;
  bool operator>(const Candidate& other) const {
    return std::pair(rank, position) > std::pair(other.rank, other.position);
  }
};

class Bpe : public Model {
 public:
  Bpe(const Component& component, Vocabulary vocabulary);

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override;
  size_t independent_part(std::string_view word) const override;

 private:
  void read_merges(const Component& component);
  void add_merge(const Component& component, size_t rank, std::string_view left,
                 std::string_view right);
  bool words_are_independent() const;
  int32_t find_character(std::string_view character) const;
  void list_symbols(std::string_view word, std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(std::vector<Symbol>& symbols) const;

  MergeTable merges_;
  std::vector<int32_t> merged_;      // what the merges make
  std::vector<int32_t> characters_;  // ids of the characters up to U+FFFF, by code point
  std::string prefix_;               // of every character but the word's first
  std::string suffix_;               // of the word's last character
  std::optional<FallbackTokens> bytes_;
  int32_t unknown_ = kNoToken;
  bool fuse_unknown_;
  bool ignore_merges_;
  bool has_independent_words_ = false;
};

Bpe::Bpe(const Component& component, Vocabulary vocabulary)
    : Model(std::move(vocabulary)),
      prefix_(component.text_or_empty("continuing_subword_prefix")),
      suffix_(component.text_or_empty("end_of_word_suffix")),
      fuse_unknown_(component.flag("fuse_unk", false)),
      ignore_merges_(component.flag("ignore_merges", false)) {
  if (component.flag("byte_fallback", false)) bytes_.emplace(this->vocabulary());
  if (const auto dropout = component.value.find("dropout");
      dropout != component.value.end() && !dropout->is_null() && *dropout != 0.0) {
    component.fail("dropout is not supported; set it to null");
  }
  read_merges(component);
  if (const std::string token = component.text_or_empty("unk_token"); !token.empty()) {
    unknown_ = this->vocabulary().find(token);
    if (unknown_ == kNoToken) component.fail("unk_token '" + token + "' is not in the vocabulary");
  }
  characters_.assign(0x10000, kNoToken);
  for (int32_t id = 0; id < this->vocabulary().end_id(); ++id) {
    const std::string* token = this->vocabulary().token(id);
    if (token == nullptr || token->empty() || utf8_size((*token)[0]) != token->size()) continue;
    const uint32_t character = decode_utf8(*token, 0).value;
    if (character < characters_.size()) characters_[character] = this->vocabulary().find(*token);
  }
  has_independent_words_ = words_are_independent();
}

void Bpe::add_merge(const Component& component, size_t rank, std::string_view left,
                    std::string_view right) {
  const auto id_of = [&](const std::string& token) {
    const int32_t id = vocabulary().find(token);
    if (id == kNoToken) {
      component.fail("merges[" + std::to_string(rank) + "]: '" + token +
                     "' is not in the vocabulary");
    }
    return id;
  };
  const int32_t left_id = id_of(std::string(left));
  const int32_t right_id = id_of(std::string(right));
  // The right half of a merge loses the mark that says it continues a word.
  const size_t cut = std::min(prefix_.size(), right.size());
  merged_.push_back(id_of(std::string(left) + std::string(right.substr(cut))));
  merges_.set(left_id, right_id, {static_cast<int32_t>(rank), merged_.back()});
}

void Bpe::read_merges(const Component& component) {
  const Json& list = component.field("merges");
  if (!list.is_array()) component.fail("'merges' must be an array");
  merges_.reserve(list.size());
  size_t rank = 0;
  for (const Json& merge : list) {
    if (merge.is_string()) {
      const auto& pair = merge.get_ref<const std::string&>();
      if (pair.starts_with("#version")) continue;
      const size_t space = pair.find(' ');
      if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) {
        component.fail("merges[" + std::to_string(rank) + "]: '" + pair +
                       "' must be two tokens with one space between them");
      }
      const std::string_view view = pair;
      add_merge(component, rank, view.substr(0, space), view.substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      add_merge(component, rank, merge[0].get_ref<const std::string&>(),
                merge[1].get_ref<const std::string&>());
    } else {
      component.fail("merges[" + std::to_string(rank) + "]: must be \"a b\" or [\"a\", \"b\"]");
    }
    ++rank;
  }
}

// Whether no token reaches over the place between another character and a space mark: then a text
// without pre-tokenizer, a single word to the model, falls into words that can be cached.
bool Bpe::words_are_independent() const {
  if (ignore_merges_ || !prefix_.empty() || !suffix_.empty()) return false;
  if (vocabulary().find(kSpaceMark) == kNoToken) return false;
  return std::none_of(merged_.begin(), merged_.end(), [&](int32_t id) {
    const std::string_view token = *vocabulary().token(id);
    for (size_t at = token.find(kSpaceMark, 1); at != std::string_view::npos;
         at = token.find(kSpaceMark, at + 1)) {
      if (!token.substr(0, at).ends_with(kSpaceMark)) return true;
    }
    return false;
  });
}

size_t Bpe::independent_part(std::string_view word) const {
  if (!has_independent_words_) return word.size();
  for (size_t at = word.find(kSpaceMark, 1); at != std::string_view::npos;
       at = word.find(kSpaceMark, at + 1)) {
    if (!word.substr(0, at).ends_with(kSpaceMark)) return at;
  }
  return word.size();
}

int32_t Bpe::find_character(std::string_view character) const {
  if (utf8_size(character[0]) == character.size()) {
    const uint32_t value = decode_utf8(character, 0).value;
    if (value < characters_.size()) return characters_[value];
  }
  return vocabulary().find(character);
}

// The word's characters as symbols: of the vocabulary, as bytes, or unknown.
void Bpe::list_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  const auto add = [&](int32_t id, uint32_t size) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1, size});
  };
  uint32_t unknown_size = 0;  // of an unknown stretch that has not been added yet
  const auto flush_unknown = [&] {
    if (unknown_size > 0) add(unknown_, unknown_size);
    unknown_size = 0;
  };
  std::string marked;
  for (size_t at = 0; at < word.size();) {
    const size_t size = utf8_size(word[at]);
    std::string_view character = word.substr(at, size);
    const bool is_first = at == 0;
    at += size;
    if ((!is_first && !prefix_.empty()) || (at == word.size() && !suffix_.empty())) {
      marked = is_first ? "" : prefix_;
      marked += character;
      if (at == word.size()) marked += suffix_;
      character = marked;
    }
    if (const int32_t id = find_character(character); id != kNoToken) {
      flush_unknown();
      add(id, static_cast<uint32_t>(size));
      continue;
    }
    if (bytes_ && bytes_->spells(character)) {
      // Bytes do not flush an unknown stretch before them: it comes after, as in the package.
      for (const char byte : character) add(bytes_->id(byte), 1);
      continue;
    }
    if (unknown_ == kNoToken) continue;  // vanishes
    if (!fuse_unknown_) flush_unknown();
    unknown_size += static_cast<uint32_t>(size);
  }
  flush_unknown();
  if (!symbols.empty()) symbols.back().next = kNoToken;
}

// Looks for the best pair again after each merge, which for few symbols is the fastest way.
void Bpe::merge_short(std::vector<Symbol>& symbols) const {
  thread_local std::vector<MergeRule> rules;  // of each symbol with the one after it
  rules.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    rules.push_back(merges_.find(symbols[i].id, symbols[i + 1].id));
  }
  while (true) {
    size_t best = rules.size();
    for (size_t i = 0; i < rules.size(); ++i) {
      if (rules[i].rank != kNoRank && (best == rules.size() || rules[i].rank < rules[best].rank)) {
        best = i;
      }
    }
    if (best == rules.size()) return;
    const auto at = static_cast<std::ptrdiff_t>(best);
    symbols[best].id = rules[best].id;
    symbols[best].size += symbols[best + 1].size;
    symbols.erase(symbols.begin() + at + 1);
    rules.erase(rules.begin() + at);
    if (best > 0) rules[best - 1] = merges_.find(symbols[best - 1].id, symbols[best].id);
    if (best < rules.size()) rules[best] = merges_.find(symbols[best].id, symbols[best + 1].id);
  }
}

void Bpe::merge_long(std::vector<Symbol>& symbols) const {
  thread_local std::vector<Candidate> heap;
  heap.clear();
  const auto push = [&](int32_t left) {
    const int32_t right = symbols[static_cast<size_t>(left)].next;
    const MergeRule rule =
        merges_.find(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (rule.rank == kNoRank) return;
    heap.push_back({rule.rank, left, rule.id});
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) push(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.position)];
    if (left.size == 0 || left.next == kNoToken) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const MergeRule rule = merges_.find(left.id, right.id);
    if (rule.rank == kNoRank || rule.id != best.id) continue;  // its symbols have changed since
    left.id = best.id;
    left.size += right.size;
    left.next = right.next;
    right.size = 0;
    if (left.next != kNoToken) symbols[static_cast<size_t>(left.next)].previous = best.position;
    if (left.previous != kNoToken) push(left.previous);
    if (left.next != kNoToken) push(best.position);
  }
}

void Bpe::tokenize(std::string_view word, std::vector<WordToken>& tokens) const {
  constexpr size_t kShort = 32;
  if (const int32_t whole = ignore_merges_ ? vocabulary().find(word) : kNoToken;
      whole != kNoToken) {
    tokens.push_back({whole, 0, static_cast<uint32_t>(word.size())});
    return;
  }
  thread_local std::vector<Symbol> symbols;
  list_symbols(word, symbols);
  if (symbols.size() <= kShort) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
  uint32_t at = 0;
  for (const Symbol& symbol : symbols) {
    if (symbol.size == 0) continue;
    tokens.push_back({symbol.id, at, at + symbol.size});
    at += symbol.size;
  }
}

}  // namespace

std::unique_ptr<Model> build_bpe(const Component& component) {
  return std::make_unique<Bpe>(component, Vocabulary::parse(component));
}

}  // namespace temper::data
