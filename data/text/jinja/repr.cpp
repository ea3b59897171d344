// How values print: Python's str() and repr().
#include <charconv>
#include <cmath>
#include <cstdio>

#include "data/text/jinja/utf8.h"
#include "data/text/jinja/value.h"

namespace temper::data::jinja {
namespace {

std::string repr_items(const std::vector<Value>& items, const char* open, const char* close,
                       int depth) {
  std::string out = open;
  spend(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    out += repr(items[i], depth + 1);
    check_text_size(out.size());
  }
  return out + close;
}

std::string repr_sequence(const Sequence& sequence, int depth) {
  switch (sequence.kind) {
    case Sequence::Kind::kList:
      return repr_items(sequence.items, "[", "]", depth);
    case Sequence::Kind::kTuple:
      return repr_items(sequence.items, "(", sequence.items.size() == 1 ? ",)" : ")", depth);
    case Sequence::Kind::kDictView:
      return sequence.repr + repr_items(sequence.items, "([", "])", depth);
    default:
      return sequence.repr;
  }
}

std::string repr_dict(const Dict& dict, int depth) {
  spend(dict.entries.size());
  std::string out = "{";
  for (const auto& [key, value] : dict.entries) {
    if (out.size() > 1) out += ", ";
    out += repr(key, depth + 1) + ": " + repr(value, depth + 1);
    check_text_size(out.size());
  }
  return out + "}";
}

}  // namespace

std::string repr_double(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (value == 0) return std::signbit(value) ? "-0.0" : "0.0";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view form(buffer, size_t(end - buffer));  // [-]d[.ddd]e+XX
  const size_t e = form.find('e');
  int exponent = 0;
  std::from_chars(form.data() + e + (form[e + 1] == '+' ? 2 : 1), end, exponent);
  std::string digits;
  for (char c : form.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  std::string out = value < 0 ? "-" : "";
  const int count = int(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += "." + digits.substr(1);
    std::snprintf(buffer, sizeof buffer, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return out + buffer;
  }
  if (exponent < 0) return out + "0." + std::string(size_t(-exponent - 1), '0') + digits;
  if (exponent + 1 >= count)
    return out + digits + std::string(size_t(exponent + 1 - count), '0') + ".0";
  return out + digits.substr(0, size_t(exponent) + 1) + "." + digits.substr(size_t(exponent) + 1);
}

std::string repr_text(std::string_view text) {
  spend(text.size());
  const bool use_double = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = use_double ? '"' : '\'';
  std::string out(1, quote);
  for (; !text.empty(); text.remove_prefix(utf8_length(text))) {
    const char32_t c = utf8_first(text);
    char buffer[16];
    if (c == char32_t(quote) || c == '\\') {
      out += '\\';
      out += char(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += text.substr(0, utf8_length(text));
    } else {
      std::snprintf(buffer, sizeof buffer,
                    c < 0x100     ? "\\x%02x"
                    : c < 0x10000 ? "\\u%04x"
                                  : "\\U%08x",
                    unsigned(c));
      out += buffer;
    }
  }
  return out + quote;
}

std::string repr(const Value& value, int depth) {
  if (depth > kMaxDepth)
    throw Error("a value nested deeper than " + std::to_string(kMaxDepth) + " cannot be printed");
  struct Printer {
    int depth;
    std::string operator()(const Undefined&) const { return "Undefined"; }
    std::string operator()(const None&) const { return "None"; }
    std::string operator()(bool flag) const { return flag ? "True" : "False"; }
    std::string operator()(int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return repr_double(number); }
    std::string operator()(const String& string) const {
      return string.safe ? "Markup(" + repr_text(*string.text) + ")" : repr_text(*string.text);
    }
    std::string operator()(const std::shared_ptr<Sequence>& sequence) const {
      return repr_sequence(*sequence, depth);
    }
    std::string operator()(const std::shared_ptr<Dict>& dict) const {
      return repr_dict(*dict, depth);
    }
    std::string operator()(const std::shared_ptr<Object>& object) const {
      return object->repr(depth);
    }
  };
  return std::visit(Printer{depth}, value.storage());
}

std::string to_text(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_string()) {
    spend_on_text(value.text().size());
    return value.text();
  }
  return repr(value);
}

}  // namespace temper::data::jinja
