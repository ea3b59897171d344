#include "data/text/pre_tokenizer.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "data/text/byte_level.h"
#include "data/text/pattern.h"
#include "data/text/unicode.h"

namespace temper::data {

namespace {

enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior parse_behavior(const Component& component) {
  return static_cast<Behavior>(component.choice(
      "behavior", {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}));
}

struct Part {
  Span span;
  bool matches;
};

// Matches and the gaps between them, in order.
void list_parts(uint32_t size, const std::vector<Span>& matches, bool invert,
                std::vector<Part>& parts) {
  parts.clear();
  uint32_t done = 0;
  for (const Span match : matches) {
    if (match.begin > done) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  }
  if (done < size) parts.push_back({{done, size}, invert});
}

// The words that the behaviour makes of the parts; empty ones are left to the caller.
void apply_behavior(Behavior behavior, std::vector<Part>& parts, std::vector<Span>& words) {
  words.clear();
  bool previous = false;
  switch (behavior) {
    case Behavior::kIsolated:
      for (const Part& part : parts) words.push_back(part.span);
      break;
    case Behavior::kRemoved:
      for (const Part& part : parts) {
        if (!part.matches) words.push_back(part.span);
      }
      break;
    case Behavior::kContiguous:
      for (const Part& part : parts) {
        if (part.matches == previous && !words.empty()) {
          words.back().end = part.span.end;
        } else {
          words.push_back(part.span);
        }
        previous = part.matches;
      }
      break;
    case Behavior::kMergedWithPrevious:
      for (const Part& part : parts) {
        if (part.matches && !previous && !words.empty()) {
          words.back().end = part.span.end;
        } else {
          words.push_back(part.span);
        }
        previous = part.matches;
      }
      break;
    case Behavior::kMergedWithNext:
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->matches && !previous && !words.empty()) {
          words.back().begin = part->span.begin;
        } else {
          words.push_back(part->span);
        }
        previous = part->matches;
      }
      std::reverse(words.begin(), words.end());
      break;
  }
}

// Cuts every word; find(text, matches) gives the matches in one word.
template <typename Find>
void split_words(Passage& passage, Behavior behavior, bool invert, const Find& find) {
  thread_local std::vector<Span> matches;
  thread_local std::vector<Part> parts;
  thread_local std::vector<Span> pieces;
  std::vector<Span> words;
  words.reserve(passage.words().size() + passage.text().size() / 4);
  for (const Span word : passage.words()) {
    find(passage.text(word), matches);
    list_parts(word.size(), matches, invert, parts);
    apply_behavior(behavior, parts, pieces);
    for (const Span piece : pieces) {
      if (piece.size() > 0) words.push_back({word.begin + piece.begin, word.begin + piece.end});
    }
  }
  passage.words() = std::move(words);
}

enum class Cut { kBegin, kContinue, kDrop };

// Cuts every word character by character: decide(c, is_first) says whether c begins a new word,
// belongs to the one before it or to none.
template <typename Decide>
void cut_where(Passage& passage, Decide decide) {
  std::vector<Span> words;
  words.reserve(passage.words().size() + passage.text().size() / 4);
  for (const Span word : passage.words()) {
    for (uint32_t at = word.begin; at < word.end;) {
      const CodePoint c = decode_utf8(passage.text(), at);
      const Cut cut = decide(c.value, at == word.begin);
      if (cut == Cut::kBegin) words.push_back({at, at + c.size});
      if (cut == Cut::kContinue) words.back().end = at + c.size;
      at += c.size;
    }
  }
  passage.words() = std::move(words);
}

// Every character for which is_match holds is a match of its own.
template <typename IsMatch>
auto find_characters(IsMatch is_match) {
  return [is_match](std::string_view text, std::vector<Span>& matches) {
    matches.clear();
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = decode_utf8(text, at);
      if (is_match(c.value)) {
        matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + c.size)});
      }
      at += c.size;
    }
  };
}

// Words as the letters of their bytes.
void spell_words(Passage& passage) {
  Rewrite rewrite(passage);
  for (const Span word : passage.words()) {
    const size_t begin = rewrite.size();
    for (uint32_t at = word.begin; at < word.end; ++at) {
      rewrite.put(byte_letter(static_cast<uint8_t>(passage.text()[at])), at);
    }
    rewrite.close_word(begin);
  }
  rewrite.finish();
}

// The steps of a component, and whether spell_words comes after them.
using Steps = PreTokenizer;

Steps one_step(std::function<void(Passage&)> step) {
  return {.steps = {std::move(step)}, .spells_bytes = false};
}

Steps build_steps(const Component& component);

Steps build_sequence(const Component& component) {
  Steps all;
  for (const Component& child : component.children("pretokenizers")) {
    Steps next = build_steps(child);
    if (next.steps.empty() && !next.spells_bytes) continue;
    if (all.spells_bytes) all.steps.emplace_back(spell_words);
    std::move(next.steps.begin(), next.steps.end(), std::back_inserter(all.steps));
    all.spells_bytes = next.spells_bytes;
  }
  return all;
}

template <typename Pattern>
std::function<void(Passage&)> split_by(Behavior behavior, bool invert, Pattern pattern) {
  return [=](Passage& passage) {
    split_words(passage, behavior, invert, [&](std::string_view text, std::vector<Span>& matches) {
      pattern.find_all(text, matches);
    });
  };
}

Steps build_split(const Component& component) {
  return one_step(split_by(parse_behavior(component), component.flag("invert", false),
                           Pattern::parse(component.field("pattern"), component.where)));
}

template <typename IsMatch>
Steps split_at(Behavior behavior, IsMatch is_match) {
  return one_step(
      [=](Passage& passage) { split_words(passage, behavior, false, find_characters(is_match)); });
}

Steps build_digits(const Component& component) {
  const Behavior behavior =
      component.flag("individual_digits", false) ? Behavior::kIsolated : Behavior::kContiguous;
  return split_at(behavior, is_numeric);
}

Steps build_punctuation(const Component& component) {
  const bool given = component.value.contains("behavior");
  return split_at(given ? parse_behavior(component) : Behavior::kIsolated, is_punctuation);
}

Steps build_whitespace_split(const Component&) {
  return split_at(Behavior::kRemoved, is_whitespace);
}

Steps build_char_delimiter_split(const Component& component) {
  return split_at(Behavior::kRemoved, [delimiter = component.character("delimiter")](uint32_t c) {
    return c == delimiter;
  });
}

// Punctuation marks, and what lies between them and whitespace.
Steps build_bert(const Component&) {
  return one_step([](Passage& passage) {
    cut_where(passage, [in_word = false](uint32_t c, bool is_first) mutable {
      const bool continues = in_word && !is_first;
      in_word = false;
      if (is_whitespace(c)) return Cut::kDrop;
      if (is_punctuation(c)) return Cut::kBegin;
      in_word = true;
      return continues ? Cut::kContinue : Cut::kBegin;
    });
  });
}

// Words, and what lies between words and whitespace: \w+|[^\w\s]+
Steps build_whitespace(const Component&) {
  return one_step([](Passage& passage) {
    enum class Kind { kSpace, kWord, kOther };
    const auto kind_of = [](uint32_t c) {
      return is_word(c) ? Kind::kWord : is_whitespace(c) ? Kind::kSpace : Kind::kOther;
    };
    cut_where(passage, [&, last = Kind::kSpace](uint32_t c, bool is_first) mutable {
      const Kind kind = kind_of(c);
      const Cut cut = kind == Kind::kSpace       ? Cut::kDrop
                      : is_first || kind != last ? Cut::kBegin
                                                 : Cut::kContinue;
      last = kind;
      return cut;
    });
  });
}

Steps build_unicode_scripts(const Component&) {
  return one_step([](Passage& passage) {
    cut_where(passage, [last = -1](uint32_t c, bool is_first) mutable {
      if (is_first) last = -1;
      const int script = script_of(c);
      if (script < 0) return last < 0 ? Cut::kDrop : Cut::kContinue;
      const bool same = script == last;
      last = script;
      return same ? Cut::kContinue : Cut::kBegin;
    });
  });
}

Steps build_fixed_length(const Component& component) {
  const int64_t length = component.integer("length");
  if (length < 1) component.fail("'length' must be 1 or more");
  return one_step([length](Passage& passage) {
    cut_where(passage, [length, count = int64_t{0}](uint32_t, bool is_first) mutable {
      count = is_first ? 0 : count + 1;
      return count % length == 0 ? Cut::kBegin : Cut::kContinue;
    });
  });
}

void prefix_words_with_space(Passage& passage) {
  Rewrite rewrite(passage);
  for (const Span word : passage.words()) {
    const size_t begin = rewrite.size();
    if (passage.text()[word.begin] != ' ') rewrite.put(" ", word.begin);
    rewrite.keep(word);
    rewrite.close_word(begin);
  }
  rewrite.finish();
}

// GPT-2's own way to cut, which ByteLevel brings along.
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

Steps build_byte_level(const Component& component) {
  const bool add_prefix_space = component.flag("add_prefix_space");
  const bool use_regex = component.flag("use_regex", true);
  Steps steps{.steps = {}, .spells_bytes = true};
  if (add_prefix_space) steps.steps.emplace_back(prefix_words_with_space);
  if (use_regex) {
    const Regex pattern(kGpt2Pattern, component.where);
    steps.steps.push_back(split_by(Behavior::kIsolated, false, pattern));
  }
  return steps;
}

enum class Prepend { kAlways, kFirst, kNever };

Prepend parse_prepend_scheme(const Component& component) {
  // Files of before prepend_scheme say add_prefix_space.
  if (!component.value.contains("prepend_scheme")) {
    return component.flag("add_prefix_space", true) ? Prepend::kAlways : Prepend::kNever;
  }
  return static_cast<Prepend>(component.choice("prepend_scheme", {"always", "first", "never"}));
}

Steps build_metaspace(const Component& component) {
  std::string mark;
  append_utf8(mark, component.character("replacement"));
  const Prepend scheme = parse_prepend_scheme(component);
  const bool split = component.flag("split", true);
  return one_step([=](Passage& passage) {
    Rewrite rewrite(passage);
    for (const Span word : passage.words()) {
      const std::string_view text = passage.text(word);
      const size_t begin = rewrite.size();
      const bool marked = text.starts_with(' ') || text.starts_with(mark);
      const bool wanted = scheme == Prepend::kAlways ||
                          (scheme == Prepend::kFirst && passage.at_original_start(word.begin));
      if (wanted && !marked) rewrite.put(mark, word.begin);
      uint32_t done = word.begin;
      for (uint32_t at = word.begin; at < word.end; ++at) {
        if (passage.text()[at] != ' ') continue;
        rewrite.keep({done, at});
        rewrite.put(mark, at);
        done = at + 1;
      }
      rewrite.keep({done, word.end});
      rewrite.close_word(begin);
    }
    rewrite.finish();
    if (!split) return;
    split_words(
        passage, Behavior::kMergedWithNext, false,
        [&](std::string_view text, std::vector<Span>& matches) {
          matches.clear();
          for (size_t at = text.find(mark); at != std::string_view::npos;
               at = text.find(mark, at + mark.size())) {
            matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + mark.size())});
          }
        });
  });
}

constexpr Builder<Steps> kPreTokenizers[] = {
    {"Sequence", build_sequence},
    {"Split", build_split},
    {"ByteLevel", build_byte_level},
    {"Metaspace", build_metaspace},
    {"Digits", build_digits},
    {"WhitespaceSplit", build_whitespace_split},
    {"CharDelimiterSplit", build_char_delimiter_split},
    {"Whitespace", build_whitespace},
    {"BertPreTokenizer", build_bert},
    {"Punctuation", build_punctuation},
    {"UnicodeScripts", build_unicode_scripts},
    {"FixedLength", build_fixed_length},
};

Steps build_steps(const Component& component) {
  return build_from<Steps>(kPreTokenizers, component);
}

}  // namespace

PreTokenizer build_pre_tokenizer(const Component& component) {
  return component.value.is_null() ? PreTokenizer{} : build_steps(component);
}

}  // namespace temper::data
