#include "data/text/word_encoder.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <utility>

#include <xxhash.h>

#include "data/text/byte_level.h"
#include "data/text/unicode.h"

namespace temper::data {

namespace {

// A word and its tokens in one cache line; what does not fit is made anew each time.
struct alignas(64) Slot {
  static constexpr size_t kLongestWord = 26;
  static constexpr size_t kMostTokens = 6;

  uint8_t word_size = 0;  // 0: an empty slot
  uint8_t count = 0;
  std::array<char, kLongestWord> word;
  std::array<uint8_t, kMostTokens> begins;
  std::array<uint8_t, kMostTokens> ends;
  std::array<int32_t, kMostTokens> ids;

  bool holds(std::string_view other) const {
    return word_size == other.size() && std::memcmp(word.data(), other.data(), word_size) == 0;
  }
  void store(std::string_view key, const std::vector<WordToken>& tokens) {
    if (tokens.size() > kMostTokens) return;
    word_size = static_cast<uint8_t>(key.size());
    std::copy(key.begin(), key.end(), word.begin());
    count = static_cast<uint8_t>(tokens.size());
    for (size_t i = 0; i < count; ++i) {
      ids[i] = tokens[i].id;
      begins[i] = static_cast<uint8_t>(tokens[i].begin);
      ends[i] = static_cast<uint8_t>(tokens[i].end);
    }
  }
};
static_assert(sizeof(Slot) == 64);

// What one thread remembers of one model: a table in which each word has one place.
class WordCache {
 public:
  explicit WordCache(uint64_t of) : owner(of) {}
  Slot& slot(std::string_view word) {
    return slots_[XXH3_64bits(word.data(), word.size()) & (kSlots - 1)];
  }
  const uint64_t owner;

 private:
  static constexpr size_t kSlots = size_t{1} << 15;
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
  place = std::make_unique<WordCache>(owner);
  return *place;
}

uint64_t next_instance() {
  static std::atomic<uint64_t> instances{0};
  return ++instances;
}

}  // namespace

WordEncoder::WordEncoder(std::unique_ptr<const Model> model, bool spells_bytes)
    : model_(std::move(model)), spells_bytes_(spells_bytes), instance_(next_instance()) {}

void WordEncoder::encode(std::string_view word, std::vector<int32_t>& ids,
                         std::vector<Span>* spans) const {
  uint32_t at = 0;
  while (at < word.size()) {
    const std::string_view rest = word.substr(at);
    const size_t part = spells_bytes_ ? rest.size() : model_->independent_part(rest);
    encode_part(rest.substr(0, part), at, ids, spans);
    at += static_cast<uint32_t>(part);
  }
}

std::string WordEncoder::spelling(int32_t id, std::string_view part) const {
  if (!model_->spells_as_text(id)) return *model_->vocabulary().token(id);
  if (!spells_bytes_) return std::string(part);
  std::string letters;
  for (const char byte : part) letters += byte_letter(static_cast<uint8_t>(byte));
  return letters;
}

void WordEncoder::encode_part(std::string_view part, uint32_t at, std::vector<int32_t>& ids,
                              std::vector<Span>* spans) const {
  Slot* slot = nullptr;
  if (part.size() <= Slot::kLongestWord) {
    slot = &cache_of(instance_).slot(part);
    if (slot->holds(part)) {
      ids.insert(ids.end(), slot->ids.begin(), slot->ids.begin() + slot->count);
      for (size_t i = 0; spans != nullptr && i < slot->count; ++i) {
        spans->push_back({at + slot->begins[i], at + slot->ends[i]});
      }
      return;
    }
  }
  thread_local std::vector<WordToken> tokens;
  tokens.clear();
  tokenize(part, tokens);
  for (const WordToken& token : tokens) {
    ids.push_back(token.id);
    if (spans != nullptr) spans->push_back({at + token.begin, at + token.end});
  }
  if (slot != nullptr) slot->store(part, tokens);
}

void WordEncoder::tokenize(std::string_view part, std::vector<WordToken>& tokens) const {
  if (!spells_bytes_) return model_->tokenize(part, tokens);
  thread_local std::string letters;
  thread_local std::vector<uint32_t> bytes;  // that each byte of the letters belongs to
  letters.clear();
  bytes.clear();
  for (uint32_t i = 0; i < part.size(); ++i) {
    const std::string_view letter = byte_letter(static_cast<uint8_t>(part[i]));
    letters += letter;
    bytes.insert(bytes.end(), letter.size(), i);
  }
  model_->tokenize(letters, tokens);
  for (WordToken& token : tokens) {
    token = {token.id, bytes[token.begin], bytes[token.end - 1] + 1};
  }
}

}  // namespace temper::data
