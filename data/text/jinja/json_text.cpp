#include "data/text/jinja/json_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Value& value, int depth) {
    spend(1);
    check_text_size(out_.size());
    if (value.is_none())
      out_ += "null";
    else if (value.is_bool())
      out_ += truthy(value) ? "true" : "false";
    else if (value.is_integer())
      out_ += std::to_string(value.as_integer());
    else if (value.is_float())
      out_ += number(value.as_double());
    else if (value.is_string())
      quote(value.text());
    else if (value.is_dict())
      write_dict(value.dict(), depth);
    else if (is_array(value))
      write_array(value.sequence()->items, depth);
    else
      throw Error("Object of type " + type_name(value) + " is not JSON serializable");
  }

  std::string take() { return std::move(out_); }

 private:
  static bool is_array(const Value& value) {
    const Sequence* sequence = value.sequence();
    return sequence &&
           (sequence->kind == Sequence::Kind::kList || sequence->kind == Sequence::Kind::kTuple);
  }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return repr_double(value);
  }

  void write_array(const std::vector<Value>& items, int depth) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i, depth + 1);
      write(items[i], depth + 1);
    }
    line(depth);
    out_ += ']';
  }

  void write_dict(const Dict& dict, int depth) {
    if (dict.entries.empty()) {
      out_ += "{}";
      return;
    }
    auto entries = dict.entries;
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; });
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i, depth + 1);
      quote(key(entries[i].first));
      out_ += style_.key_separator;
      write(entries[i].second, depth + 1);
    }
    line(depth);
    out_ += '}';
  }

  static std::string key(const Value& value) {
    if (value.is_string()) return value.text();
    if (value.is_none()) return "null";
    if (value.is_bool()) return truthy(value) ? "true" : "false";
    if (value.is_integer()) return std::to_string(value.as_integer());
    if (value.is_float()) return number(value.as_double());
    throw Error("keys must be str, int, float, bool or None, not " + type_name(value));
  }

  void separate(size_t index, int depth) {
    if (index > 0) out_ += style_.item_separator;
    line(depth);
  }

  void line(int depth) {
    if (!style_.indent) return;
    out_ += '\n';
    for (int i = 0; i < depth; ++i) out_ += *style_.indent;
  }

  void quote(std::string_view text) {
    spend(text.size());
    out_ += '"';
    for (; !text.empty(); text.remove_prefix(utf8_length(text))) {
      const char32_t c = utf8_first(text);
      switch (c) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\f':
          out_ += "\\f";
          break;
        case '\b':
          out_ += "\\b";
          break;
        default:
          if (c < 0x20 || (style_.ascii && c > 0x7f))
            escape(c);
          else
            out_ += text.substr(0, utf8_length(text));
      }
    }
    out_ += '"';
  }

  void escape(char32_t c) {
    char buffer[16];
    if (c < 0x10000) {
      std::snprintf(buffer, sizeof buffer, "\\u%04x", unsigned(c));
    } else {
      const unsigned high = 0xd800 + unsigned((c - 0x10000) >> 10),
                     low = 0xdc00 + unsigned((c - 0x10000) & 0x3ff);
      std::snprintf(buffer, sizeof buffer, "\\u%04x\\u%04x", high, low);
    }
    out_ += buffer;
  }

  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

std::string to_json(const Value& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace temper::data::jinja
