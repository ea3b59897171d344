#include <algorithm>
#include <bitset>
#include <iterator>
#include <memory>
#include <utility>

#include "data/text/normalizer.h"
#include "data/text/unicode.h"
#include "data/text/unicode_tables.h"

namespace temper::data {

namespace {

// Hangul syllables by arithmetic (The Unicode Standard, section 3.12).
constexpr uint32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr uint32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28;
constexpr uint32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

uint32_t combining_class(uint32_t c) {
  const std::span<const CombiningClass> table = combining_classes();
  const auto after =
      std::upper_bound(table.begin(), table.end(), c,
                       [](uint32_t v, const CombiningClass& row) { return v < row.first; });
  if (after == table.begin() || c > std::prev(after)->last) return 0;
  return std::prev(after)->value;
}

const Decomposition* find_decomposition(uint32_t c) {
  const std::span<const Decomposition> table = canonical_decompositions();
  const auto found =
      std::lower_bound(table.begin(), table.end(), c,
                       [](const Decomposition& row, uint32_t v) { return row.code_point < v; });
  return found != table.end() && found->code_point == c ? &*found : nullptr;
}

// 0 where the two do not compose.
uint32_t compose(uint32_t left, uint32_t right) {
  if (left - kLeads < kLeadCount && right - kVowels < kVowelCount) {
    return kSyllables + ((left - kLeads) * kVowelCount + (right - kVowels)) * kTailCount;
  }
  if (left - kSyllables < kSyllableCount && (left - kSyllables) % kTailCount == 0 &&
      right > kTails && right - kTails < kTailCount) {
    return left + (right - kTails);
  }
  const std::span<const Composition> table = canonical_compositions();
  const auto found = std::lower_bound(table.begin(), table.end(), std::pair(left, right),
                                      [](const Composition& row, std::pair<uint32_t, uint32_t> v) {
                                        return std::pair(row.left, row.right) < v;
                                      });
  const bool composes = found != table.end() && found->left == left && found->right == right;
  return composes ? found->composed : 0;
}

// A character that NFC leaves alone whatever comes before it. Every other one belongs to the run
// that the last such character began.
class Starters {
 public:
  Starters() : restless_(std::make_unique<std::bitset<0x110000>>()) {
    for (const CombiningClass& row : combining_classes()) {
      for (uint32_t c = row.first; c <= row.last; ++c) restless_->set(c);
    }
    for (const Composition& row : canonical_compositions()) restless_->set(row.right);
    for (uint32_t c = kVowels; c < kVowels + kVowelCount; ++c) restless_->set(c);
    for (uint32_t c = kTails + 1; c < kTails + kTailCount; ++c) restless_->set(c);
    for (const Decomposition& row : canonical_decompositions()) {
      const uint32_t count = static_cast<uint32_t>(
          std::find(std::begin(row.parts), std::end(row.parts), 0U) - std::begin(row.parts));
      uint32_t whole = row.parts[0];
      for (uint32_t i = 1; i < count && whole != 0; ++i) whole = compose(whole, row.parts[i]);
      if (whole != row.code_point) restless_->set(row.code_point);
    }
  }
  bool is_restless(uint32_t c) const { return restless_->test(c); }

 private:
  std::unique_ptr<std::bitset<0x110000>> restless_;
};

// A character on its way through the normalization. `change` is how many characters of the source
// it stands for, less one
// (+1: inserted), which is how the package's alignments are made.
struct Moving {
  uint32_t value;
  int change;
  uint32_t combining_class;
};

void decompose(uint32_t c, std::vector<Moving>& out) {
  const auto put = [&](uint32_t value, bool first) {
    out.push_back({value, first ? 0 : 1, combining_class(value)});
  };
  if (c - kSyllables < kSyllableCount) {
    const uint32_t index = c - kSyllables;
    put(kLeads + index / (kVowelCount * kTailCount), true);
    put(kVowels + index / kTailCount % kVowelCount, false);
    if (index % kTailCount != 0) put(kTails + index % kTailCount, false);
  } else if (const Decomposition* row = find_decomposition(c)) {
    for (size_t i = 0; i < 4 && row->parts[i] != 0; ++i) put(row->parts[i], i == 0);
  } else {
    put(c, true);
  }
}

void order_marks(std::vector<Moving>& run) {
  for (auto at = run.begin(); at != run.end();) {
    if (at->combining_class == 0) {
      ++at;
      continue;
    }
    const auto end =
        std::find_if(at, run.end(), [](const Moving& c) { return c.combining_class == 0; });
    std::stable_sort(at, end, [](const Moving& a, const Moving& b) {
      return a.combining_class < b.combining_class;
    });
    at = end;
  }
}

void recompose(std::vector<Moving>& run) {
  std::vector<Moving> result;
  size_t starter = run.size();  // index in result of the character that may still take others in
  uint32_t last_class = 0;
  for (const Moving& c : run) {
    if (starter < result.size()) {
      const bool adjacent = starter + 1 == result.size();
      const bool blocked = !adjacent && (last_class == 0 || last_class >= c.combining_class);
      if (!blocked) {
        if (const uint32_t whole = compose(result[starter].value, c.value)) {
          result[starter].value = whole;
          result[starter].change += c.change - 1;
          continue;
        }
      }
    }
    if (c.combining_class == 0) starter = result.size();
    last_class = c.combining_class;
    result.push_back(c);
  }
  run = std::move(result);
}

void normalize_run(std::string_view text, Span span, Rewrite& rewrite) {
  std::vector<Moving> run;
  for (size_t at = span.begin; at < span.end;) {
    const CodePoint c = decode_utf8(text, at);
    decompose(c.value, run);
    at += c.size;
  }
  order_marks(run);
  recompose(run);
  size_t old = span.begin;
  for (const Moving& c : run) {
    std::string bytes;
    append_utf8(bytes, c.value);
    if (c.change > 0) {
      rewrite.insert(bytes, old);
      continue;
    }
    rewrite.put(bytes, old);
    for (int i = 0; i <= -c.change && old < span.end; ++i) old += utf8_size(text[old]);
  }
}

}  // namespace

void apply_nfc(Passage& passage) {
  static const Starters starters;
  const std::string& text = passage.text();
  std::vector<Span> runs;
  size_t previous = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    if (c.value >= 0x300 && starters.is_restless(c.value)) {
      size_t end = at + c.size;
      while (end < text.size()) {
        const CodePoint next = decode_utf8(text, end);
        if (!starters.is_restless(next.value)) break;
        end += next.size;
      }
      runs.push_back({static_cast<uint32_t>(previous), static_cast<uint32_t>(end)});
      at = end;
      previous = end;
    } else {
      previous = at;
      at += c.size;
    }
  }
  if (runs.empty()) return;
  Rewrite rewrite(passage);
  uint32_t done = 0;
  for (const Span run : runs) {
    rewrite.keep({done, run.begin});
    normalize_run(text, run, rewrite);
    done = run.end;
  }
  rewrite.keep({done, static_cast<uint32_t>(text.size())});
  rewrite.finish();
}

}  // namespace temper::data
