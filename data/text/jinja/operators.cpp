#include "data/text/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "data/text/jinja/methods.h"
#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

[[noreturn]] void refuse(std::string_view op, const Value& left, const Value& right) {
  for (const Value& operand : {left, right}) {
    if (operand.is_undefined()) {
      const auto& what = std::get<Undefined>(operand.storage()).what;
      throw Error(what ? *what : "a value is undefined");
    }
  }
  throw Error("unsupported operand types for " + std::string(op) + ": '" + type_name(left) +
              "' and '" + type_name(right) + "'");
}

[[noreturn]] void overflow() { throw Error("an integer beyond 64 bits"); }

int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) throw Error("division by zero");
  if (a == std::numeric_limits<int64_t>::min() && b == -1) overflow();
  return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}

double floor_mod(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) overflow();
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value integer_arithmetic(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) overflow();
  } else if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) overflow();
  } else if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) overflow();
  } else if (op == "//") {
    result = floor_div(a, b);
  } else if (op == "%") {
    if (b == 0) throw Error("integer modulo by zero");
    result = b == -1 ? 0 : a - floor_div(a, b) * b;
  } else if (op == "**") {
    if (b < 0) {
      if (a == 0) throw Error("0 to a negative power");
      return std::pow(double(a), double(b));
    }
    result = integer_power(a, b);
  } else {
    if (b == 0) throw Error("division by zero");
    return double(a) / double(b);
  }
  return result;
}

Value float_arithmetic(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") {
    if (a == 0 && b < 0) throw Error("0 to a negative power");
    if (a < 0 && b != std::floor(b)) throw Error("a complex number");
    return std::pow(a, b);
  }
  if (b == 0) throw Error("float division by zero");
  if (op == "/") return a / b;
  return op == "//" ? std::floor(a / b) : floor_mod(a, b);
}

Value repeat(const Value& value, int64_t times) {
  const size_t count = times > 0 ? size_t(times) : 0;
  if (value.is_string()) {
    const std::string& text = value.text();
    if (!text.empty() && count > kMaxTextBytes / text.size()) check_text_size(kMaxTextBytes + 1);
    spend_on_text(text.size() * count);
    spend(text.empty() ? 0 : count);
    std::string out;
    out.reserve(text.size() * count);
    for (size_t i = 0; i < count && !text.empty(); ++i) out += text;
    return Value(std::move(out), value.safe());
  }
  const Sequence& sequence = *value.sequence();
  if (!sequence.items.empty() && count > kMaxItems / sequence.items.size()) {
    throw Error("a list of more than " + std::to_string(kMaxItems) + " items");
  }
  std::vector<Value> items;
  for (size_t i = 0; i < count && !sequence.items.empty(); ++i)
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  return sequence.kind == Sequence::Kind::kTuple ? Value::tuple(std::move(items))
                                                 : Value::list(std::move(items));
}

bool repeatable(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.is_string() || (sequence && (sequence->kind == Sequence::Kind::kList ||
                                            sequence->kind == Sequence::Kind::kTuple));
}

Value add_strings(const Value& left, const Value& right) {
  spend_on_text(left.text().size() + right.text().size());
  check_text_size(left.text().size() + right.text().size());
  if (!left.safe() && !right.safe()) return left.text() + right.text();
  return Value(escape_html(left).text() + escape_html(right).text(), true);
}

/// Python's rules for the ends of a slice over `size` items; returns the chosen positions.
std::vector<size_t> slice_positions(int64_t size, const Value& start, const Value& stop,
                                    const Value& step) {
  const int64_t stride = step.is_none() ? 1 : step.as_integer();
  if (stride == 0) throw Error("slice step cannot be zero");
  const auto bound = [&](const Value& value, int64_t fallback) {
    if (value.is_none()) return fallback;
    int64_t position = value.as_integer();
    if (position < 0)
      position = position < -size ? -1 : position + size;
    else if (position > size)
      position = size;
    if (position < 0) return stride < 0 ? int64_t{-1} : int64_t{0};
    return stride < 0 && position >= size ? size - 1 : position;
  };
  const int64_t first = bound(start, stride < 0 ? size - 1 : 0);
  const int64_t last = bound(stop, stride < 0 ? -1 : size);
  std::vector<size_t> positions;
  if (stride > 0) {
    for (int64_t i = first; i < last; i += std::min(stride, size)) positions.push_back(size_t(i));
  } else {
    for (int64_t i = first; i > last; i += std::max(stride, -size)) positions.push_back(size_t(i));
  }
  return positions;
}

std::optional<Value> find_item(const Value& object, const Value& index) {
  if (object.is_dict()) {
    const Value* found = object.dict().find(index);
    return found ? std::optional(*found) : std::nullopt;
  }
  const Sequence* sequence = object.sequence();
  const bool indexable =
      object.is_string() || (sequence && sequence->kind != Sequence::Kind::kGenerator &&
                             sequence->kind != Sequence::Kind::kDictView);
  if (!indexable || !(index.is_integer() || index.is_bool())) return std::nullopt;
  const int64_t size = length(object);
  int64_t position = index.as_integer();
  if (position < 0) position += size;
  if (position < 0 || position >= size) return std::nullopt;
  if (sequence) return sequence->items[size_t(position)];
  spend_on_text(object.text().size());
  const std::string_view rest =
      std::string_view(object.text()).substr(utf8_offset(object.text(), size_t(position)));
  return Value(rest.substr(0, utf8_length(rest)));
}

Value missing(const Value& object, const std::string& what) {
  return Value::undefined("'" + type_name(object) + "' has no " + what);
}

void require_defined(const Value& object) {
  if (!object.is_undefined()) return;
  const auto& what = std::get<Undefined>(object.storage()).what;
  throw Error(what ? *what : "a value is undefined");
}

}  // namespace

Value arithmetic(std::string_view op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float())
      return float_arithmetic(op, left.as_double(), right.as_double());
    return integer_arithmetic(op, left.as_integer(), right.as_integer());
  }
  if (op == "+") {
    if (left.is_string() && right.is_string()) return add_strings(left, right);
    const Sequence* a = left.sequence();
    const Sequence* b = right.sequence();
    if (a && b && a->kind == b->kind && repeatable(left)) {
      std::vector<Value> items = a->items;
      items.insert(items.end(), b->items.begin(), b->items.end());
      return a->kind == Sequence::Kind::kTuple ? Value::tuple(std::move(items))
                                               : Value::list(std::move(items));
    }
  } else if (op == "*") {
    if (repeatable(left) && right.is_number() && !right.is_float())
      return repeat(left, right.as_integer());
    if (repeatable(right) && left.is_number() && !left.is_float())
      return repeat(right, left.as_integer());
  } else if (op == "%" && left.is_string()) {
    return Value(percent_format(left.text(), right), left.safe());
  }
  refuse(op, left, right);
}

Value negate(const Value& operand) {
  if (!operand.is_number()) refuse("-", 0, operand);
  if (operand.is_float()) return -operand.as_double();
  return integer_arithmetic("-", 0, operand.as_integer());
}

Value get_attribute(const Value& object, const std::string& name) {
  require_defined(object);
  if (auto found = find_attribute(object, name)) return *found;
  if (auto found = find_item(object, name)) return *found;
  return missing(object, "attribute '" + name + "'");
}

Value get_item(const Value& object, const Value& index) {
  require_defined(object);
  if (auto found = find_item(object, index)) return *found;
  if (index.is_string()) {
    if (auto found = find_attribute(object, index.text())) return *found;
  }
  return missing(object, "element " + repr(index));
}

Value slice(const Value& object, const Value& start, const Value& stop, const Value& step) {
  require_defined(object);
  const Sequence* sequence = object.sequence();
  const bool sliceable =
      object.is_string() || (sequence && sequence->kind != Sequence::Kind::kGenerator &&
                             sequence->kind != Sequence::Kind::kDictView);
  if (!sliceable) throw Error("'" + type_name(object) + "' cannot be sliced");
  const std::vector<Value> items = object.is_string() ? iterate(object) : sequence->items;
  const std::vector<size_t> positions = slice_positions(int64_t(items.size()), start, stop, step);
  if (object.is_string()) {
    std::string text;
    for (size_t i : positions) text += items[i].text();
    return Value(std::move(text), object.safe());
  }
  std::vector<Value> chosen;
  chosen.reserve(positions.size());
  for (size_t i : positions) chosen.push_back(items[i]);
  return sequence->kind == Sequence::Kind::kTuple ? Value::tuple(std::move(chosen))
                                                  : Value::list(std::move(chosen));
}

Value escape_html(const Value& value) {
  if (value.safe()) return value;
  std::string out;
  const std::string text = to_text(value);
  spend(text.size());
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return Value(std::move(out), true);
}

std::string percent_format(std::string_view format, const Value& arguments) {
  const Sequence* tuple = arguments.sequence();
  if (tuple && tuple->kind != Sequence::Kind::kTuple) tuple = nullptr;
  const std::vector<Value> values = tuple ? tuple->items : std::vector<Value>{arguments};
  size_t used = 0;
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    if (++i < format.size() && format[i] == '%') {
      out += '%';
      continue;
    }
    const Value* value = nullptr;
    if (i < format.size() && format[i] == '(') {
      const size_t end = format.find(')', i);
      if (end == format.npos || !arguments.is_dict())
        throw Error("a %(name) format needs a mapping");
      value = arguments.dict().find(format.substr(i + 1, end - i - 1));
      if (!value) throw Error("no value for '" + std::string(format.substr(i, end - i + 1)) + "'");
      used = values.size();
      i = end + 1;
    }
    std::string flags = "%";
    while (i < format.size() &&
           std::string_view("-+ #0123456789.").find(format[i]) != std::string_view::npos)
      flags += format[i++];
    if (i >= format.size()) throw Error("incomplete format");
    if (flags.size() > 8) throw Error("a format too wide");
    if (!value) {
      if (used >= values.size()) throw Error("not enough arguments for format string");
      value = &values[used++];
    }
    char buffer[1100];
    switch (format[i]) {
      case 's':
      case 'r': {
        const std::string text = format[i] == 's' ? to_text(*value) : repr(*value);
        std::string_view shown = text;
        const size_t dot = flags.find('.');
        if (dot != flags.npos)
          shown = shown.substr(0, utf8_offset(shown, size_t(std::atoi(flags.c_str() + dot + 1))));
        const bool left = flags.find('-') != flags.npos;
        const size_t digits = flags.find_first_of("0123456789.", 1);
        const size_t width = digits == flags.npos ? 0 : size_t(std::atoi(flags.c_str() + digits));
        const size_t count = utf8_count(shown);
        const std::string padding(width > count ? width - count : 0, ' ');
        check_text_size(out.size() + shown.size() + padding.size());
        out += left ? std::string(shown) + padding : padding + std::string(shown);
        break;
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        if (!value->is_number())
          throw Error(std::string("%") + format[i] + " needs a number, not '" + type_name(*value) +
                      "'");
        const int64_t number =
            value->is_float() ? int64_t(value->as_double()) : value->as_integer();
        const char kind = format[i] == 'u' ? 'd' : format[i];
        if (std::snprintf(buffer, sizeof buffer, (flags + "l" + kind).c_str(), long(number)) >=
            int(sizeof buffer))
          throw Error("a format too wide");
        out += buffer;
        break;
      }
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G':
        if (!value->is_number())
          throw Error("a float is required, not '" + type_name(*value) + "'");
        if (std::snprintf(buffer, sizeof buffer, (flags + format[i]).c_str(), value->as_double()) >=
            int(sizeof buffer))
          throw Error("a format too wide");
        out += buffer;
        break;
      default:
        throw Error(std::string("unsupported format character '") + format[i] + "'");
    }
  }
  // Python lets what could be a mapping pass.
  const Sequence* list = arguments.sequence();
  const bool subscriptable =
      arguments.is_dict() || arguments.is_undefined() ||
      (list && (list->kind == Sequence::Kind::kList || list->kind == Sequence::Kind::kRange));
  if (used < values.size() && !subscriptable)
    throw Error("not all arguments converted during string formatting");
  return out;
}

}  // namespace temper::data::jinja
