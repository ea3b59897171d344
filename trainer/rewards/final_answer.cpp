#include "trainer/rewards/final_answer.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "trainer/rewards/latex_text.h"
#include "trainer/rewards/pattern.h"

namespace temper::trainer {
namespace {

// One pass over all braces, so that a completion of nothing but openings costs no more.
std::optional<std::string_view> last_boxed(std::string_view text) {
  std::vector<std::pair<size_t, bool>> open;  // after the brace; of a box
  std::optional<std::string_view> last;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      const std::string_view before =
          trimmed(text.substr(i < 12 ? 0 : i - 12, std::min<size_t>(i, 12)));
      open.emplace_back(i + 1, before.ends_with("\\boxed") || before.ends_with("\\fbox"));
    } else if (text[i] == '}' && !open.empty()) {
      const auto [begin, boxed] = open.back();
      open.pop_back();
      if (boxed) last = text.substr(begin, i - begin);
    }
  }
  return last;
}

std::string_view first_line(std::string_view text) {
  text = trimmed(text);
  return trimmed(text.substr(0, text.find('\n')));
}

std::optional<std::string_view> after_last(std::string_view text, std::string_view mark) {
  const size_t at = text.rfind(mark);
  if (at == std::string_view::npos) return std::nullopt;
  return first_line(text.substr(at + mark.size()));
}

std::optional<std::string_view> after_phrase(std::string_view text) {
  static const Pattern phrase("(?i)\\banswer\\**\\s*(?:is|:|=)(?:\\s*:)?\\**", "answer");
  const std::string_view found = phrase.last_in(text);
  if (found.empty()) return std::nullopt;
  return first_line(text.substr(found.data() + found.size() - text.data()));
}

// "42. So ..." without what follows the sentence.
std::string_view first_sentence(std::string_view text) {
  const size_t end = text.find(". ");
  return trimmed(text.substr(0, end));
}

// Between the first pair of $, \( \) or \[ \]; empty when there is none.
std::string_view first_formula(std::string_view text) {
  using Pair = std::pair<std::string_view, std::string_view>;
  for (const auto& [open, close] : {Pair{"$", "$"}, Pair{"\\(", "\\)"}, Pair{"\\[", "\\]"}}) {
    const size_t begin = text.find(open);
    if (begin == std::string_view::npos) continue;
    const size_t inside = begin + open.size(), end = text.find(close, inside);
    if (end != std::string_view::npos && end > inside) return text.substr(inside, end - inside);
  }
  return {};
}

const Pattern& number_pattern() {
  static const Pattern pattern(
      "(?:(?<![\\w)\\]}])[-\u2212]\\s?)?(?:\\\\[dt]?frac\\{-?\\d+\\}\\{\\d+\\}|"
      "\\$?(?:\\d{1,3}(?:,\\d{3})+(?!\\d)|\\d+)(?:\\.\\d+)?(?:[eE][-+]?\\d+)?(?:/\\d+)?\\s?%?|"
      "\\.\\d+)",
      "number");
  return pattern;
}

// Looks at the end first: a completion may be numbers without end.
std::vector<MathValue> last_number(std::string_view text) {
  constexpr size_t kTail = 4096;
  const size_t space =
      text.size() > kTail ? text.find_first_of(" \n", text.size() - kTail) : std::string_view::npos;
  std::string_view found;
  if (space != std::string_view::npos) found = number_pattern().last_in(text.substr(space));
  if (found.empty()) found = number_pattern().last_in(text);
  return found.empty() ? std::vector<MathValue>{} : read_math(found, Words::kInText);
}

std::vector<MathValue> first_number(std::string_view text) {
  const std::string_view found = number_pattern().first_in(text);
  return found.empty() ? std::vector<MathValue>{} : read_math(found, Words::kInText);
}

// What a phrase announces: a whole line, its first sentence, a formula or a number in it.
std::vector<MathValue> announced(std::string_view line) {
  for (const std::string_view text : {line, first_sentence(line), first_formula(line)}) {
    if (text.empty()) continue;
    if (auto readings = read_math(text, Words::kInText); !readings.empty()) return readings;
  }
  if (auto readings = first_number(line); !readings.empty()) return readings;
  return read_math(first_sentence(line), Words::kAnywhere);
}

}  // namespace

std::vector<MathValue> answer_of_completion(std::string_view completion) {
  constexpr std::string_view kThought = "</think>";
  if (const size_t end = completion.rfind(kThought); end != std::string_view::npos) {
    completion.remove_prefix(end + kThought.size());
  }
  if (const auto boxed = last_boxed(completion)) return read_math(*boxed, Words::kAnywhere);
  if (const auto line = after_last(completion, "####")) return announced(*line);
  if (const auto line = after_phrase(completion)) return announced(*line);
  return last_number(completion);
}

std::vector<MathValue> answer_of_row(std::string_view answer) {
  if (const auto boxed = last_boxed(answer)) return read_math(*boxed, Words::kInText);
  if (const auto line = after_last(answer, "####")) return read_math(*line, Words::kInText);
  if (auto readings = read_math(answer, Words::kInText); !readings.empty()) return readings;
  if (const auto line = after_phrase(answer)) return announced(*line);
  return read_math(first_formula(answer), Words::kInText);
}

}  // namespace temper::trainer
