#include "data/text/bpe.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>

#include <xxhash.h>

#include "data/text/unicode.h"

namespace temper::data {

namespace {

constexpr int32_t kNone = -1;
// Ids index a table: a file whose largest id is far above its number of tokens is a mistake, not a
// vocabulary.
constexpr int64_t kLargestId = (int64_t{1} << 24) - 1;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return XXH3_64bits(text.data(), text.size()); }
};

struct MergeRule {
  int32_t rank = kNone;
  int32_t id = kNone;
};

// (left, right) -> rule, by open addressing: this is the inner loop of everything that is not in
// the cache.
class MergeTable {
 public:
  void reserve(size_t rules) {
    size_t size = 16;
    while (size < rules * 2) size *= 2;
    keys_.assign(size, kEmpty);
    rules_.resize(size);
  }
  void set(int32_t left, int32_t right, MergeRule rule) {
    const size_t slot = find_slot(key(left, right));
    keys_[slot] = key(left, right);
    rules_[slot] = rule;
  }
  /// rank is kNone where there is no such rule.
  MergeRule find(int32_t left, int32_t right) const {
    const size_t slot = find_slot(key(left, right));
    return keys_[slot] == kEmpty ? MergeRule{} : rules_[slot];
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t find_slot(uint64_t wanted) const {
    const size_t mask = keys_.size() - 1;
    size_t slot = static_cast<size_t>((wanted * 0x9E3779B97F4A7C15ULL) >> 20) & mask;
    while (keys_[slot] != kEmpty && keys_[slot] != wanted) slot = (slot + 1) & mask;
    return slot;
  }
  std::vector<uint64_t> keys_;
  std::vector<MergeRule> rules_;
};

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

// What one thread remembers of one model: a table in which each word has one place.
class WordCache {
 public:
  static constexpr size_t kLongestWord = 64;

  struct Slot {
    std::string word;
    std::vector<WordToken> tokens;
  };
  Slot& slot(std::string_view word) { return slots_[StringHash{}(word) & (kSlots - 1)]; }
  uint64_t owner = 0;

 private:
  static constexpr size_t kSlots = size_t{1} << 14;
  std::vector<Slot> slots_ = std::vector<Slot>(kSlots);
};

// A thread seldom works with more than a model's and a reward model's tokenizer; the oldest gives
// way to a third.
WordCache& cache_of(uint64_t owner) {
  thread_local std::array<std::unique_ptr<WordCache>, 2> caches;
  thread_local size_t oldest = 0;
  for (const auto& cache : caches) {
    if (cache && cache->owner == owner) return *cache;
  }
  std::unique_ptr<WordCache>& place = caches[oldest];
  oldest = (oldest + 1) % caches.size();
  place = std::make_unique<WordCache>();
  place->owner = owner;
  return *place;
}

}  // namespace

struct Bpe::Tables {
  std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> ids;
  std::vector<std::string> tokens;
  std::vector<bool> is_known;
  MergeTable merges;
  std::array<int32_t, 256> byte_ids;  // of "<0xHH>"
  std::string prefix;                 // of every character but the word's first
  std::string suffix;                 // of the word's last character
  int32_t unknown = kNone;
  bool byte_fallback = false;
  bool fuse_unknown = false;
  bool ignore_merges = false;
  uint64_t instance = 0;

  int32_t find(std::string_view token) const {
    const auto found = ids.find(token);
    return found == ids.end() ? kNone : found->second;
  }

  void read_vocabulary(const Component& component);
  void read_merges(const Component& component);
  void add_merge(const Component& component, size_t rank, std::string_view left,
                 std::string_view right);
  void list_symbols(std::string_view word, std::vector<Symbol>& symbols) const;
  void merge_all(std::vector<Symbol>& symbols) const;
};

void Bpe::Tables::read_vocabulary(const Component& component) {
  const Json& vocabulary = component.field("vocab");
  if (!vocabulary.is_object()) component.fail("'vocab' must be an object of token: id");
  ids.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kLargestId) {
      component.fail("vocab: the id of '" + token + "' must be an integer from 0 to " +
                     std::to_string(kLargestId));
    }
    const auto index = id.get<size_t>();
    if (index >= tokens.size()) {
      tokens.resize(index + 1);
      is_known.resize(index + 1);
    }
    ids.emplace(token, static_cast<int32_t>(index));
    tokens[index] = token;
    is_known[index] = true;
  }
}

void Bpe::Tables::add_merge(const Component& component, size_t rank, std::string_view left,
                            std::string_view right) {
  const auto id_of = [&](const std::string& token) {
    const int32_t id = find(token);
    if (id == kNone) {
      component.fail("merges[" + std::to_string(rank) + "]: '" + token +
                     "' is not in the vocabulary");
    }
    return id;
  };
  const int32_t left_id = id_of(std::string(left));
  const int32_t right_id = id_of(std::string(right));
  // The right half of a merge loses the mark that says it continues a word.
  const size_t cut = std::min(prefix.size(), right.size());
  const int32_t merged = id_of(std::string(left) + std::string(right.substr(cut)));
  merges.set(left_id, right_id, {static_cast<int32_t>(rank), merged});
}

void Bpe::Tables::read_merges(const Component& component) {
  const Json& list = component.field("merges");
  if (!list.is_array()) component.fail("'merges' must be an array");
  merges.reserve(list.size());
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

// The word's characters as symbols: of the vocabulary, as bytes, or unknown.
void Bpe::Tables::list_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  const auto add = [&](int32_t id, uint32_t size) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1, size});
  };
  uint32_t unknown_size = 0;  // of an unknown stretch that has not been added yet
  const auto flush_unknown = [&] {
    if (unknown_size > 0) add(unknown, unknown_size);
    unknown_size = 0;
  };
  std::string marked;
  for (size_t at = 0; at < word.size();) {
    const size_t size = utf8_size(word[at]);
    std::string_view character = word.substr(at, size);
    const bool is_first = at == 0;
    at += size;
    if ((!is_first && !prefix.empty()) || (at == word.size() && !suffix.empty())) {
      marked = is_first ? "" : prefix;
      marked += character;
      if (at == word.size()) marked += suffix;
      character = marked;
    }
    if (const int32_t id = find(character); id != kNone) {
      flush_unknown();
      add(id, static_cast<uint32_t>(size));
      continue;
    }
    if (byte_fallback) {
      const auto id_of = [&](char byte) { return byte_ids[static_cast<uint8_t>(byte)]; };
      if (std::all_of(character.begin(), character.end(),
                      [&](char byte) { return id_of(byte) != kNone; })) {
        // Bytes do not flush an unknown stretch before them: it comes after, as in the package.
        for (const char byte : character) add(id_of(byte), 1);
        continue;
      }
    }
    if (unknown == kNone) continue;  // vanishes
    if (!fuse_unknown) flush_unknown();
    unknown_size += static_cast<uint32_t>(size);
  }
  flush_unknown();
  if (!symbols.empty()) symbols.back().next = kNone;
}

void Bpe::Tables::merge_all(std::vector<Symbol>& symbols) const {
  thread_local std::vector<Candidate> heap;
  heap.clear();
  const auto push = [&](int32_t left) {
    const int32_t right = symbols[static_cast<size_t>(left)].next;
    const MergeRule rule =
        merges.find(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (rule.rank == kNone) return;
    heap.push_back({rule.rank, left, rule.id});
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) push(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.position)];
    if (left.size == 0 || left.next == kNone) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const MergeRule rule = merges.find(left.id, right.id);
    if (rule.rank == kNone || rule.id != best.id) continue;  // its symbols have changed since
    left.id = best.id;
    left.size += right.size;
    left.next = right.next;
    right.size = 0;
    if (left.next != kNone) symbols[static_cast<size_t>(left.next)].previous = best.position;
    if (left.previous != kNone) push(left.previous);
    if (left.next != kNone) push(best.position);
  }
}

Bpe::Bpe(const Component& component) {
  static std::atomic<uint64_t> instances{0};
  auto tables = std::make_shared<Tables>();
  tables->instance = ++instances;
  tables->prefix = component.text_or_empty("continuing_subword_prefix");
  tables->suffix = component.text_or_empty("end_of_word_suffix");
  tables->byte_fallback = component.flag("byte_fallback", false);
  tables->fuse_unknown = component.flag("fuse_unk", false);
  tables->ignore_merges = component.flag("ignore_merges", false);
  if (const auto dropout = component.value.find("dropout");
      dropout != component.value.end() && !dropout->is_null() && *dropout != 0.0) {
    component.fail("dropout is not supported; set it to null");
  }
  tables->read_vocabulary(component);
  tables->read_merges(component);
  if (const std::string token = component.text_or_empty("unk_token"); !token.empty()) {
    tables->unknown = tables->find(token);
    if (tables->unknown == kNone)
      component.fail("unk_token '" + token + "' is not in the vocabulary");
  }
  for (int byte = 0; byte < 256; ++byte) {
    constexpr const char* kDigits = "0123456789ABCDEF";
    const std::string token = {'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
    tables->byte_ids[static_cast<size_t>(byte)] = tables->find(token);
  }
  tables_ = std::move(tables);
}

void Bpe::tokenize(std::string_view word, std::vector<WordToken>& tokens) const {
  const Tables& tables = *tables_;
  WordCache::Slot* slot = nullptr;
  if (word.size() <= WordCache::kLongestWord) {
    slot = &cache_of(tables.instance).slot(word);
    if (slot->word == word) {
      tokens.insert(tokens.end(), slot->tokens.begin(), slot->tokens.end());
      return;
    }
  }
  const auto begin = static_cast<std::ptrdiff_t>(tokens.size());
  const int32_t whole = tables.ignore_merges ? tables.find(word) : kNone;
  if (whole != kNone) {
    tokens.push_back({whole, static_cast<uint32_t>(word.size())});
  } else {
    thread_local std::vector<Symbol> symbols;
    tables.list_symbols(word, symbols);
    tables.merge_all(symbols);
    for (const Symbol& symbol : symbols) {
      if (symbol.size > 0) tokens.push_back({symbol.id, symbol.size});
    }
  }
  if (slot != nullptr) {
    slot->word = word;
    slot->tokens.assign(tokens.begin() + begin, tokens.end());
  }
}

std::optional<int32_t> Bpe::token_to_id(std::string_view token) const {
  const int32_t id = tables_->find(token);
  return id == kNone ? std::nullopt : std::optional(id);
}

const std::string* Bpe::id_to_token(int32_t id) const {
  const auto index = static_cast<size_t>(id);
  return id >= 0 && index < tables_->tokens.size() && tables_->is_known[index]
             ? &tables_->tokens[index]
             : nullptr;
}

int64_t Bpe::entries() const { return static_cast<int64_t>(tables_->ids.size()); }

int64_t Bpe::end_id() const { return static_cast<int64_t>(tables_->tokens.size()); }

}  // namespace temper::data
