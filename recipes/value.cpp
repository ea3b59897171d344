#include "recipes/value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "recipes/diagnostic.h"

namespace temper::recipes {
namespace {

std::string number(double value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  std::string shortest(text.data(), end);
  // TOML tells a float from an integer by its point or exponent.
  if (shortest.find_first_of(".en") == std::string::npos) shortest += ".0";
  return shortest;
}

std::string bare_or_quoted_key(const std::string& key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  return bare ? key : in_quotes(key);
}

struct ToToml {
  std::string operator()(std::monostate) const { return "\"auto\""; }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return number(value); }
  std::string operator()(const std::string& value) const { return in_quotes(value); }
  std::string operator()(const std::vector<std::string>& values) const {
    return "[" + all_in_quotes(values) + "]";
  }
  std::string operator()(const std::vector<double>& values) const {
    std::vector<std::string> texts;
    for (const double value : values) texts.push_back(number(value));
    return "[" + join(texts) + "]";
  }
  std::string operator()(const std::vector<int64_t>& values) const {
    std::vector<std::string> texts;
    for (const int64_t value : values) texts.push_back(std::to_string(value));
    return "[" + join(texts) + "]";
  }
  template <class Entry>
  std::string operator()(const std::map<std::string, Entry>& entries) const {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : entries) {
      pairs.push_back(bare_or_quoted_key(key) + " = " + (*this)(value));
    }
    return pairs.empty() ? "{}" : "{ " + join(pairs) + " }";
  }
};

}  // namespace

std::string to_toml(const Value& value) { return std::visit(ToToml{}, value); }

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          std::array<char, 8> escape;
          std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(c));
          out += escape.data();
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

std::string all_in_quotes(const std::vector<std::string>& names) {
  std::vector<std::string> texts;
  for (const std::string& name : names) texts.push_back(in_quotes(name));
  return join(texts);
}

}  // namespace temper::recipes
