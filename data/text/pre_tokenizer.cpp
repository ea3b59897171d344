#include "data/text/pre_tokenizer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "data/text/byte_level.h"
#include "data/text/pattern.h"
#include "data/text/unicode.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

constexpr std::pair<const char*, Behavior> kBehaviors[] = {
    {"Removed", Behavior::kRemoved},
    {"Isolated", Behavior::kIsolated},
    {"MergedWithPrevious", Behavior::kMergedWithPrevious},
    {"MergedWithNext", Behavior::kMergedWithNext},
    {"Contiguous", Behavior::kContiguous},
};

Behavior parse_behavior(const Component& component) {
  const std::string name = component.text("behavior");
  std::vector<std::string> known;
  for (const auto& [spelling, behavior] : kBehaviors) {
    if (name == spelling) return behavior;
    known.push_back(spelling);
  }
  component.fail("behavior '" + name + "' is not supported; there are " + join(known));
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

PreTokenizer build_sequence(const Component& component) {
  std::vector<PreTokenizer> steps;
  for (const Component& child : component.children("pretokenizers")) {
    steps.push_back(build_pre_tokenizer(child));
  }
  return [steps = std::move(steps)](Passage& passage) {
    for (const PreTokenizer& step : steps) step(passage);
  };
}

PreTokenizer build_split(const Component& component) {
  return [pattern = Pattern::parse(component.field("pattern"), component.where),
          behavior = parse_behavior(component),
          invert = component.flag("invert", false)](Passage& passage) {
    split_words(passage, behavior, invert, [&](std::string_view text, std::vector<Span>& matches) {
      pattern.find_all(text, matches);
    });
  };
}

PreTokenizer build_digits(const Component& component) {
  const Behavior behavior =
      component.flag("individual_digits", false) ? Behavior::kIsolated : Behavior::kContiguous;
  return [behavior](Passage& passage) {
    split_words(passage, behavior, false, find_characters(is_numeric));
  };
}

PreTokenizer build_whitespace_split(const Component&) {
  return [](Passage& passage) {
    split_words(passage, Behavior::kRemoved, false, find_characters(is_whitespace));
  };
}

PreTokenizer build_char_delimiter_split(const Component& component) {
  return [delimiter = component.character("delimiter")](Passage& passage) {
    split_words(passage, Behavior::kRemoved, false,
                find_characters([&](uint32_t c) { return c == delimiter; }));
  };
}

// GPT-2's own way to cut, which ByteLevel brings along.
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

PreTokenizer build_byte_level(const Component& component) {
  const bool add_prefix_space = component.flag("add_prefix_space");
  const bool use_regex = component.flag("use_regex", true);
  const Regex pattern(kGpt2Pattern, component.where);
  return [=](Passage& passage) {
    if (add_prefix_space) {
      Rewrite rewrite(passage);
      for (const Span word : passage.words()) {
        const size_t begin = rewrite.size();
        if (passage.text()[word.begin] != ' ') rewrite.put(" ", word.begin);
        rewrite.keep(word);
        rewrite.close_word(begin);
      }
      rewrite.finish();
    }
    if (use_regex) {
      split_words(passage, Behavior::kIsolated, false,
                  [&](std::string_view text, std::vector<Span>& matches) {
                    pattern.find_all(text, matches);
                  });
    }
    Rewrite rewrite(passage);
    for (const Span word : passage.words()) {
      const size_t begin = rewrite.size();
      for (uint32_t at = word.begin; at < word.end; ++at) {
        rewrite.put(byte_letter(static_cast<uint8_t>(passage.text()[at])), at);
      }
      rewrite.close_word(begin);
    }
    rewrite.finish();
  };
}

enum class Prepend { kAlways, kFirst, kNever };

Prepend parse_prepend_scheme(const Component& component) {
  // Files of before prepend_scheme say add_prefix_space.
  if (!component.value.contains("prepend_scheme")) {
    return component.flag("add_prefix_space", true) ? Prepend::kAlways : Prepend::kNever;
  }
  const std::string scheme = component.text("prepend_scheme");
  if (scheme == "always") return Prepend::kAlways;
  if (scheme == "first") return Prepend::kFirst;
  if (scheme == "never") return Prepend::kNever;
  component.fail("prepend_scheme '" + scheme +
                 "' is not supported; there are always, first, never");
}

PreTokenizer build_metaspace(const Component& component) {
  std::string mark;
  append_utf8(mark, component.character("replacement"));
  const Prepend scheme = parse_prepend_scheme(component);
  const bool split = component.flag("split", true);
  return [=](Passage& passage) {
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
  };
}

constexpr Builder<PreTokenizer> kPreTokenizers[] = {
    {"Sequence", build_sequence},
    {"Split", build_split},
    {"ByteLevel", build_byte_level},
    {"Metaspace", build_metaspace},
    {"Digits", build_digits},
    {"WhitespaceSplit", build_whitespace_split},
    {"CharDelimiterSplit", build_char_delimiter_split},
};

}  // namespace

PreTokenizer build_pre_tokenizer(const Component& component) {
  if (component.value.is_null()) return nullptr;
  return build_from<PreTokenizer>(kPreTokenizers, component);
}

}  // namespace temper::data
