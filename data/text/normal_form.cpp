#include <algorithm>
#include <iterator>
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

template <typename Row>
const Row* find_row(std::span<const Row> table, uint32_t c) {
  const auto found = std::lower_bound(
      table.begin(), table.end(), c, [](const Row& row, uint32_t v) { return row.code_point < v; });
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

bool is_compatible(NormalForm form) {
  return form == NormalForm::kNfkc || form == NormalForm::kNfkd;
}
bool composes(NormalForm form) { return form == NormalForm::kNfc || form == NormalForm::kNfkc; }

// Characters that the form may change, or that may change with the ones before them. Every other
// one begins a run of its own, to which those after it belong.
CharacterSet list_restless(NormalForm form) {
  CharacterSet restless;
  for (const CombiningClass& row : combining_classes()) restless.add(row.first, row.last);
  if (is_compatible(form)) {
    for (const CompatibleDecomposition& row : compatible_decompositions()) {
      restless.add(row.code_point, row.code_point);
    }
  }
  if (!composes(form)) {
    for (const Decomposition& row : canonical_decompositions()) {
      restless.add(row.code_point, row.code_point);
    }
    restless.add(kSyllables, kSyllables + kSyllableCount - 1);
    return restless;
  }
  for (const Composition& row : canonical_compositions()) restless.add(row.right, row.right);
  restless.add(kVowels, kVowels + kVowelCount - 1);
  restless.add(kTails + 1, kTails + kTailCount - 1);
  for (const Decomposition& row : canonical_decompositions()) {
    const auto count =
        std::find(std::begin(row.parts), std::end(row.parts), 0U) - std::begin(row.parts);
    uint32_t whole = row.parts[0];
    for (std::ptrdiff_t i = 1; i < count && whole != 0; ++i) whole = compose(whole, row.parts[i]);
    if (whole != row.code_point) restless.add(row.code_point, row.code_point);
  }
  return restless;
}

const CharacterSet& restless_of(NormalForm form) {
  switch (form) {
    case NormalForm::kNfc: {
      static const CharacterSet nfc = list_restless(NormalForm::kNfc);
      return nfc;
    }
    case NormalForm::kNfd: {
      static const CharacterSet nfd = list_restless(NormalForm::kNfd);
      return nfd;
    }
    case NormalForm::kNfkc: {
      static const CharacterSet nfkc = list_restless(NormalForm::kNfkc);
      return nfkc;
    }
    case NormalForm::kNfkd:
      break;
  }
  static const CharacterSet nfkd = list_restless(NormalForm::kNfkd);
  return nfkd;
}

struct Moving : Change {
  uint32_t combining_class;
};

void decompose(uint32_t c, bool compatible, std::vector<Moving>& out) {
  const auto put = [&](uint32_t value, bool first) {
    out.push_back({{value, first ? 0 : 1}, combining_class(value)});
  };
  if (compatible) {
    if (const CompatibleDecomposition* row = find_row(compatible_decompositions(), c)) {
      for (uint32_t i = 0; i < row->count; ++i) put(compatible_parts()[row->begin + i], i == 0);
      return;
    }
  }
  const CanonicalParts parts = canonical_parts(c);
  for (size_t i = 0; i < parts.size() && (i == 0 || parts[i] != 0); ++i) put(parts[i], i == 0);
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
        if (const uint32_t whole = compose(result[starter].character, c.character)) {
          result[starter].character = whole;
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

void normalize_run(std::string_view text, Span span, NormalForm form, Rewrite& rewrite) {
  std::vector<Moving> run;
  for (size_t at = span.begin; at < span.end;) {
    const CodePoint c = decode_utf8(text, at);
    decompose(c.value, is_compatible(form), run);
    at += c.size;
  }
  order_marks(run);
  if (composes(form)) recompose(run);
  const std::vector<Change> changes(run.begin(), run.end());
  rewrite.apply(changes, span);
}

}  // namespace

CanonicalParts canonical_parts(uint32_t c) {
  if (c - kSyllables < kSyllableCount) {
    const uint32_t index = c - kSyllables;
    const uint32_t tail = index % kTailCount;
    return {kLeads + index / (kVowelCount * kTailCount), kVowels + index / kTailCount % kVowelCount,
            tail == 0 ? 0 : kTails + tail, 0};
  }
  const Decomposition* row = find_row(canonical_decompositions(), c);
  if (row == nullptr) return {c, 0, 0, 0};
  return {row->parts[0], row->parts[1], row->parts[2], row->parts[3]};
}

void apply_normal_form(NormalForm form, Passage& passage) {
  const CharacterSet& restless = restless_of(form);
  const std::string& text = passage.text();
  std::vector<Span> runs;
  size_t previous = 0;
  for (size_t at = 0; at < text.size();) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      previous = at++;
      continue;
    }
    const CodePoint c = decode_utf8(text, at);
    if (restless.contains(c.value)) {
      size_t end = at + c.size;
      while (end < text.size()) {
        const CodePoint next = decode_utf8(text, end);
        if (!restless.contains(next.value)) break;
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
    normalize_run(text, run, form, rewrite);
    done = run.end;
  }
  rewrite.keep({done, static_cast<uint32_t>(text.size())});
  rewrite.finish();
}

}  // namespace temper::data
