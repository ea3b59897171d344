// Filters that make text and numbers.
#include <charconv>
#include <cmath>

#include "data/text/jinja/filters.h"
#include "data/text/jinja/json_text.h"
#include "data/text/jinja/methods.h"
#include "data/text/jinja/operators.h"
#include "data/text/jinja/string_methods.h"
#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

/// The input as a string that keeps being safe.
Value text_value(const Value& input) { return input.is_string() ? input : Value(to_text(input)); }

Value by_method(std::string_view name, const Value& input, const Arguments& arguments) {
  return call_string_method(*find_string_method(name), text_value(input), arguments);
}

Value upper_filter(const Value& input, const Arguments& arguments) {
  return by_method("upper", input, arguments);
}
Value lower_filter(const Value& input, const Arguments& arguments) {
  return by_method("lower", input, arguments);
}
Value capitalize_filter(const Value& input, const Arguments& arguments) {
  return by_method("capitalize", input, arguments);
}
Value trim(const Value& input, const Arguments& arguments) {
  return by_method("strip", input, arguments);
}

Value center(const Value& input, const Arguments& arguments) {
  const auto bound = bind("center", arguments, {"width"});
  return by_method("center", input, {{bound[0].value_or(80)}, {}});
}

/// Words begin after white space, -, (, {, [ and <; unlike str.title, an apostrophe does not end
/// one.
Value title_filter(const Value& input, const Arguments& arguments) {
  bind("title", arguments, {});
  const std::string text = to_text(input);
  std::string out;
  bool begins = true;
  std::string_view rest = text;
  std::string word;
  const auto flush = [&] {
    if (!word.empty())
      out += upper(word.substr(0, utf8_length(word))) +
             lower(std::string_view(word).substr(utf8_length(word)));
    word.clear();
  };
  for (; !rest.empty(); rest.remove_prefix(utf8_length(rest))) {
    const char32_t c = utf8_first(rest);
    const bool separator = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    if (separator != begins) flush();
    begins = separator;
    word += rest.substr(0, utf8_length(rest));
  }
  flush();
  return Value(std::move(out), input.safe());
}

Value replace_filter(const Value& input, const Arguments& arguments) {
  const auto bound = bind("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t count = bound[2] && !bound[2]->is_none() ? bound[2]->as_integer() : -1;
  return replace_text(to_text(input), to_text(*bound[0]), to_text(*bound[1]), count);
}

Value string_filter(const Value& input, const Arguments& arguments) {
  bind("string", arguments, {});
  return text_value(input);
}

Value safe(const Value& input, const Arguments& arguments) {
  bind("safe", arguments, {});
  return Value(to_text(input), true);
}

Value escape(const Value& input, const Arguments& arguments) {
  bind("escape", arguments, {});
  return escape_html(input);
}

Value force_escape(const Value& input, const Arguments& arguments) {
  bind("forceescape", arguments, {});
  return escape_html(to_text(input));
}

Value indent(const Value& input, const Arguments& arguments) {
  if (!input.is_string()) throw Error("indent: needs a string, not '" + type_name(input) + "'");
  const auto bound = bind("indent", arguments, {"width", "first", "blank"});
  const Value width = bound[0].value_or(4);
  if (!width.is_string()) check_text_size(size_t(std::max<int64_t>(0, width.as_integer())));
  const std::string margin =
      width.is_string() ? width.text()
                        : std::string(size_t(std::max<int64_t>(0, width.as_integer())), ' ');
  const bool first = bound[1] && truthy(*bound[1]);
  const bool blank = bound[2] && truthy(*bound[2]);
  const std::string text = input.text() + "\n";  // so that a last line break indents too
  const std::vector<Value> lines =
      iterate(find_string_method("splitlines")->call("splitlines", text, {}));
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i].text();
    if (i > 0) out += '\n';
    if (i == 0 ? first : blank || !line.empty()) out += margin;
    out += line;
    check_text_size(out.size());
  }
  return Value(std::move(out), input.safe());
}

Value truncate(const Value& input, const Arguments& arguments) {
  const auto bound = bind("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t limit = bound[0] ? bound[0]->as_integer() : 255;
  const bool kill_words = bound[1] && truthy(*bound[1]);
  const std::string end = bound[2] ? to_text(*bound[2]) : "...";
  const int64_t leeway = bound[3] && !bound[3]->is_none() ? bound[3]->as_integer() : 5;
  const int64_t kept = limit - int64_t(utf8_count(end));
  if (kept < 0 || leeway < 0) throw Error("truncate: length and leeway are too small");
  if (length(input) <= limit + leeway) return input;
  if (!input.is_string()) throw Error("truncate needs a string, not '" + type_name(input) + "'");
  const std::string& text = input.text();
  std::string cut = text.substr(0, utf8_offset(text, size_t(kept)));
  if (!kill_words) cut = cut.substr(0, cut.rfind(' '));
  return cut + end;
}

Value format(const Value& input, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keyword.empty()) {
    throw Error("format: positional and keyword arguments together");
  }
  if (arguments.keyword.empty())
    return percent_format(to_text(input), Value::tuple(arguments.positional));
  auto names = std::make_shared<Dict>();
  for (const auto& [name, value] : arguments.keyword) names->set(name, value);
  return percent_format(to_text(input), names);
}

Value tojson(const Value& input, const Arguments& arguments) {
  const auto bound =
      bind("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound[0] && truthy(*bound[0]);
  if (bound[1] && !bound[1]->is_none()) {
    style.indent =
        bound[1]->is_string()
            ? bound[1]->text()
            : std::string(size_t(std::clamp<int64_t>(bound[1]->as_integer(), 0, 1000)), ' ');
    style.item_separator = ",";
  }
  if (bound[2] && !bound[2]->is_none()) {
    const std::vector<Value> separators = iterate(*bound[2]);
    if (separators.size() != 2) throw Error("tojson: separators must be two strings");
    style.item_separator = to_text(separators[0]);
    style.key_separator = to_text(separators[1]);
  }
  style.sort_keys = bound[3] && truthy(*bound[3]);
  return to_json(input, style);
}

Value word_count(const Value& input, const Arguments& arguments) {
  bind("wordcount", arguments, {});
  int64_t count = 0;
  bool inside = false;
  const std::string text = to_text(input);
  for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(utf8_length(rest))) {
    const char32_t c = utf8_first(rest);
    const bool word = is_alpha(c) || is_digit(c) || c == '_';
    count += word && !inside;
    inside = word;
  }
  return count;
}

/// Python's float(text); empty when it is no number.
std::optional<double> parse_double(std::string_view text) {
  text = strip(text, nullptr);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Value int_filter(const Value& input, const Arguments& arguments) {
  const auto bound = bind("int", arguments, {"default", "base"});
  const Value fallback = bound[0].value_or(0);
  if (input.is_number() && !input.is_float()) return input.as_integer();
  std::optional<double> number;
  if (input.is_float()) number = input.as_double();
  if (input.is_string()) {
    std::string_view text = strip(input.text(), nullptr);
    if (text.starts_with('+')) text.remove_prefix(1);
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value,
                                              bound[1] ? int(bound[1]->as_integer()) : 10);
    if (error == std::errc{} && end == text.data() + text.size()) return value;
    number = parse_double(text);
  }
  if (input.is_undefined()) return input.as_integer();  // throws
  if (!number || !std::isfinite(*number)) return fallback;
  if (std::abs(*number) >= 9.2e18) throw Error("an integer beyond 64 bits");
  return int64_t(*number);
}

Value float_filter(const Value& input, const Arguments& arguments) {
  const auto bound = bind("float", arguments, {"default"});
  if (input.is_number()) return input.as_double();
  if (input.is_undefined()) return input.as_double();  // throws
  const auto number = input.is_string() ? parse_double(input.text()) : std::nullopt;
  return number ? Value(*number) : bound[0].value_or(0.0);
}

Value abs_filter(const Value& input, const Arguments& arguments) {
  bind("abs", arguments, {});
  if (input.is_float()) return std::abs(input.as_double());
  return input.as_integer() < 0 ? negate(input) : Value(input.as_integer());
}

/// Python's round(): integers stay integers, ties go to even.
Value rounded_integer(int64_t value, int64_t precision) {
  if (precision >= 0) return value;
  if (precision < -18) return 0;
  int64_t unit = 1;
  for (; precision < 0; ++precision) unit *= 10;
  const int64_t rest = (value % unit + unit) % unit, below = value - rest;
  const bool up = rest > unit / 2 || (rest == unit / 2 && (below / unit) % 2 != 0);
  return up ? arithmetic("+", below, unit) : Value(below);
}

Value round_filter(const Value& input, const Arguments& arguments) {
  const auto bound = bind("round", arguments, {"precision", "method"});
  const int64_t precision = bound[0] ? bound[0]->as_integer() : 0;
  const std::string method = bound[1] ? to_text(*bound[1]) : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    throw Error("round: method must be common, ceil or floor");
  if (precision < -300 || precision > 300) throw Error("round: precision out of range");
  const double value = input.as_double(), scale = std::pow(10.0, double(precision));
  if (method == "ceil") return std::ceil(value * scale) / scale;
  if (method == "floor") return std::floor(value * scale) / scale;
  if (!input.is_float()) return rounded_integer(input.as_integer(), precision);
  if (precision < 0) return std::nearbyint(value * scale) / scale;
  char buffer[700];
  std::snprintf(buffer, sizeof buffer, "%.*f", int(precision),
                value);  // correctly rounded, ties to even, as Python's
  return *parse_double(buffer);
}

constexpr Filter kFilters[] = {
    {"abs", abs_filter},
    {"capitalize", capitalize_filter},
    {"center", center},
    {"e", escape},
    {"escape", escape},
    {"float", float_filter},
    {"forceescape", force_escape},
    {"format", format},
    {"indent", indent},
    {"int", int_filter},
    {"lower", lower_filter},
    {"replace", replace_filter},
    {"round", round_filter},
    {"safe", safe},
    {"string", string_filter},
    {"title", title_filter},
    {"tojson", tojson},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", upper_filter},
    {"wordcount", word_count},
};

}  // namespace

std::span<const Filter> text_filters() { return kFilters; }

}  // namespace temper::data::jinja
