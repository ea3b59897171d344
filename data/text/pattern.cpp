#include "data/text/pattern.h"

#include "recipes/diagnostic.h"

namespace temper::data {

Pattern Pattern::parse(const Json& value, const std::string& where) {
  if (value.is_string()) return Pattern(value.get<std::string>());
  if (value.is_object() && value.size() == 1 && value.begin()->is_string()) {
    const auto text = value.begin()->get<std::string>();
    if (value.begin().key() == "String") return Pattern(text);
    if (value.begin().key() == "Regex") return Pattern(Regex(text, where));
  }
  throw UserError(where + ": pattern must be {\"String\": \"...\"} or {\"Regex\": \"...\"}");
}

void Pattern::find_all(std::string_view text, std::vector<Span>& matches) const {
  if (const Regex* regex = std::get_if<Regex>(&pattern_)) return regex->find_all(text, matches);
  matches.clear();
  const auto& literal = std::get<std::string>(pattern_);
  if (literal.empty()) return;
  for (size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal.size())});
  }
}

std::string Pattern::replace_all(std::string_view text, std::string_view content) const {
  std::vector<Span> matches;
  find_all(text, matches);
  std::string result;
  size_t done = 0;
  for (const Span match : matches) {
    result.append(text, done, match.begin - done);
    result.append(content);
    done = match.end;
  }
  result.append(text, done);
  return result;
}

}  // namespace temper::data
