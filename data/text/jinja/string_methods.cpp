#include "data/text/jinja/string_methods.h"

#include <algorithm>
#include <iterator>

#include "data/text/jinja/methods.h"
#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

using Name = std::string_view;

const std::string& text_of(Name method, const Value& value) {
  if (!value.is_string())
    throw Error(std::string(method) + "() needs a string, not '" + type_name(value) + "'");
  return value.text();
}

Value change_case(Name name, const std::string& text, const Arguments& arguments) {
  bind(name, arguments, {});
  if (name == "lower") return lower(text);
  if (name == "upper") return upper(text);
  return name == "title" ? title(text) : capitalize(text);
}

Value strip_method(Name name, const std::string& text, const Arguments& arguments) {
  const auto bound = bind(name, arguments, {"chars"});
  const std::string* characters =
      bound[0] && !bound[0]->is_none() ? &text_of(name, *bound[0]) : nullptr;
  const Side side = name == "strip" ? Side::kBoth : name == "lstrip" ? Side::kLeft : Side::kRight;
  return strip(text, characters, side);
}

std::vector<std::string_view> split_on_space(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  for (text = strip(text, nullptr, Side::kLeft); !text.empty();
       text = strip(text, nullptr, Side::kLeft)) {
    if (limit >= 0 && int64_t(parts.size()) >= limit) {
      parts.push_back(strip(text, nullptr, Side::kRight));
      break;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(utf8_first(text.substr(end))))
      end += utf8_length(text.substr(end));
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

std::vector<std::string_view> rsplit_on_space(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  for (text = strip(text, nullptr, Side::kRight); !text.empty();
       text = strip(text, nullptr, Side::kRight)) {
    if (limit >= 0 && int64_t(parts.size()) >= limit) {
      parts.push_back(strip(text, nullptr, Side::kLeft));
      break;
    }
    size_t begin = text.size();
    while (begin > 0 && !is_space(utf8_first(utf8_last(text.substr(0, begin)))))
      begin -= utf8_last(text.substr(0, begin)).size();
    parts.push_back(text.substr(begin));
    text.remove_suffix(text.size() - begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_on(std::string_view text, std::string_view separator,
                                       int64_t limit, bool from_right) {
  std::vector<std::string_view> parts;
  for (; limit < 0 || int64_t(parts.size()) < limit;) {
    const size_t found = from_right ? text.rfind(separator) : text.find(separator);
    if (found == text.npos) break;
    const std::string_view before = text.substr(0, found),
                           after = text.substr(found + separator.size());
    parts.push_back(from_right ? after : before);
    text = from_right ? before : after;
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

Value split_method(Name name, const std::string& text, const Arguments& arguments) {
  const auto bound = bind(name, arguments, {"sep", "maxsplit"});
  const int64_t limit = bound[1] ? bound[1]->as_integer() : -1;
  const bool from_right = name == "rsplit";
  std::vector<std::string_view> parts;
  if (!bound[0] || bound[0]->is_none()) {
    parts = from_right ? rsplit_on_space(text, limit) : split_on_space(text, limit);
  } else {
    const std::string& separator = text_of(name, *bound[0]);
    if (separator.empty()) throw Error("empty separator");
    parts = split_on(text, separator, limit, from_right);
  }
  return Value::list({parts.begin(), parts.end()});
}

Value splitlines(Name name, const std::string& text, const Arguments& arguments) {
  const auto bound = bind(name, arguments, {"keepends"});
  const bool keep = bound[0] && truthy(*bound[0]);
  std::vector<Value> lines;
  std::string_view rest = text;
  for (size_t begin = 0, end = 0; begin < rest.size(); begin = end) {
    size_t stop = begin;
    for (end = begin; end < rest.size();) {
      const char32_t c = utf8_first(rest.substr(end));
      stop = end;
      end += utf8_length(rest.substr(end));
      if ((c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
          c == 0x2029) {
        if (c == '\r' && end < rest.size() && rest[end] == '\n') ++end;
        break;
      }
      stop = end;
    }
    lines.emplace_back(rest.substr(begin, (keep ? end : stop) - begin));
  }
  return Value::list(std::move(lines));
}

/// The part of `text` that start and end (in characters) choose, and its first byte.
std::pair<std::string_view, size_t> window(std::string_view text, const std::optional<Value>& start,
                                           const std::optional<Value>& end) {
  const int64_t count = int64_t(utf8_count(text));
  const auto at = [&](const std::optional<Value>& value, int64_t fallback) {
    if (!value || value->is_none()) return fallback;
    const int64_t position = value->as_integer();
    return std::clamp<int64_t>(position < 0 ? position + count : position, 0, count);
  };
  const size_t begin = utf8_offset(text, size_t(at(start, 0)));
  const size_t stop = utf8_offset(text, size_t(at(end, count)));
  return {begin < stop ? text.substr(begin, stop - begin) : std::string_view(), begin};
}

Value starts_or_ends(Name name, const std::string& text, const Arguments& arguments) {
  const auto bound = bind(name, arguments, {"prefix", "start", "end"}, 1);
  const std::string_view part = window(text, bound[1], bound[2]).first;
  const auto matches = [&](const Value& value) {
    const std::string& affix = text_of(name, value);
    return name == "startswith" ? part.starts_with(affix) : part.ends_with(affix);
  };
  const Sequence* choices = bound[0]->sequence();
  if (!choices) return matches(*bound[0]);
  return std::any_of(choices->items.begin(), choices->items.end(), matches);
}

Value find_method(Name name, const std::string& text, const Arguments& arguments) {
  const auto bound = bind(name, arguments, {"sub", "start", "end"}, 1);
  const std::string& wanted = text_of(name, *bound[0]);
  const auto [part, begin] = window(text, bound[1], bound[2]);
  if (name == "count") {
    if (wanted.empty()) return int64_t(utf8_count(part) + 1);
    int64_t count = 0;
    for (size_t at = 0; (at = part.find(wanted, at)) != part.npos; at += wanted.size()) ++count;
    return count;
  }
  const size_t found = name.starts_with('r') ? part.rfind(wanted) : part.find(wanted);
  if (found != part.npos)
    return int64_t(utf8_count(std::string_view(text).substr(0, begin + found)));
  if (name.ends_with("index")) throw Error("substring not found");
  return -1;
}

Value replace_method(Name name, const std::string& text, const Arguments& arguments) {
  const auto bound = bind(name, arguments, {"old", "new", "count"}, 2);
  return replace_text(text, text_of(name, *bound[0]), text_of(name, *bound[1]),
                      bound[2] ? bound[2]->as_integer() : -1);
}

Value remove_affix(Name name, const std::string& text, const Arguments& arguments) {
  const std::string affix = text_of(name, *bind(name, arguments, {"affix"}, 1)[0]);
  const std::string_view view = text;
  if (name == "removeprefix") return view.starts_with(affix) ? view.substr(affix.size()) : view;
  return !affix.empty() && view.ends_with(affix) ? view.substr(0, view.size() - affix.size())
                                                 : view;
}

Value partition(Name name, const std::string& text, const Arguments& arguments) {
  const std::string separator = text_of(name, *bind(name, arguments, {"sep"}, 1)[0]);
  if (separator.empty()) throw Error("empty separator");
  const bool from_right = name == "rpartition";
  const size_t found = from_right ? text.rfind(separator) : text.find(separator);
  if (found == text.npos)
    return from_right ? Value::tuple({"", "", text}) : Value::tuple({text, "", ""});
  return Value::tuple({text.substr(0, found), separator, text.substr(found + separator.size())});
}

Value join_method(Name name, const std::string& text, const Arguments& arguments) {
  const std::vector<Value> items = iterate(*bind(name, arguments, {"iterable"}, 1)[0]);
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += text;
    out += text_of(name, items[i]);
    check_text_size(out.size());
  }
  return out;
}

Value pad(Name name, const std::string& text, const Arguments& arguments) {
  const auto bound = bind(name, arguments, {"width", "fillchar"}, 1);
  const std::string fill = bound[1] ? text_of(name, *bound[1]) : name == "zfill" ? "0" : " ";
  const int64_t missing = bound[0]->as_integer() - int64_t(utf8_count(text));
  if (missing <= 0) return text;
  check_text_size(text.size() + fill.size() * size_t(missing));
  const auto filled = [&](int64_t count) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += fill;
    return out;
  };
  if (name == "ljust") return text + filled(missing);
  if (name == "rjust") return filled(missing) + text;
  if (name == "zfill") {
    const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
    return text.substr(0, sign) + filled(missing) + text.substr(sign);
  }
  // Python puts the odd character left when the width is odd.
  const int64_t left = missing / 2 + (missing & bound[0]->as_integer() & 1);
  return filled(left) + text + filled(missing - left);
}

Value is_kind(Name name, const std::string& text, const Arguments& arguments) {
  bind(name, arguments, {});
  bool any_cased = false, all = !text.empty();
  for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(utf8_length(rest))) {
    const char32_t c = utf8_first(rest);
    any_cased |= is_lower(c) || is_upper(c);
    if (name == "isalpha")
      all &= is_alpha(c);
    else if (name == "isdigit" || name == "isnumeric" || name == "isdecimal")
      all &= is_digit(c);
    else if (name == "isalnum")
      all &= is_alpha(c) || is_digit(c);
    else if (name == "isspace")
      all &= is_space(c);
    else if (name == "islower")
      all &= !is_upper(c);
    else
      all &= !is_lower(c);
  }
  return all && (any_cased || (name != "islower" && name != "isupper"));
}

constexpr StringMethod kMethods[] = {
    {"capitalize", change_case},
    {"center", pad},
    {"count", find_method},
    {"endswith", starts_or_ends},
    {"find", find_method},
    {"index", find_method},
    {"isalnum", is_kind},
    {"isalpha", is_kind},
    {"isdecimal", is_kind},
    {"isdigit", is_kind},
    {"islower", is_kind},
    {"isnumeric", is_kind},
    {"isspace", is_kind},
    {"isupper", is_kind},
    {"join", join_method},
    {"ljust", pad},
    {"lower", change_case},
    {"lstrip", strip_method},
    {"partition", partition},
    {"removeprefix", remove_affix},
    {"removesuffix", remove_affix},
    {"replace", replace_method},
    {"rfind", find_method},
    {"rindex", find_method},
    {"rjust", pad},
    {"rpartition", partition},
    {"rsplit", split_method},
    {"rstrip", strip_method},
    {"split", split_method},
    {"splitlines", splitlines},
    {"startswith", starts_or_ends},
    {"strip", strip_method},
    {"title", change_case},
    {"upper", change_case},
    {"zfill", pad},
};

}  // namespace

const StringMethod* find_string_method(std::string_view name) {
  const auto found = std::find_if(std::begin(kMethods), std::end(kMethods),
                                  [&](const StringMethod& method) { return method.name == name; });
  return found == std::end(kMethods) ? nullptr : found;
}

Value call_string_method(const StringMethod& method, const Value& text,
                         const Arguments& arguments) {
  spend(text.text().size());
  Value result = method.call(method.name, text.text(), arguments);
  if (!text.safe() || !result.is_string()) return result;
  return Value(result.text(), true);
}

std::string replace_text(std::string_view text, std::string_view from, std::string_view to,
                         int64_t count) {
  spend(text.size());
  std::string out;
  if (from.empty()) {
    for (; count != 0; --count) {
      out += to;
      if (text.empty()) return out;
      out += text.substr(0, utf8_length(text));
      text.remove_prefix(utf8_length(text));
      check_text_size(out.size());
    }
    return out += text;
  }
  for (; count != 0; --count) {
    const size_t found = text.find(from);
    if (found == text.npos) break;
    out += text.substr(0, found);
    out += to;
    text.remove_prefix(found + from.size());
    check_text_size(out.size());
  }
  return out += text;
}

}  // namespace temper::data::jinja
