#include "data/io/json.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include <simdjson.h>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

constexpr int kMaxDepth = 1024;  // simdjson's

struct Fault {
  size_t line = 1;
  size_t column = 1;
  std::string what;
};

Fault describe(std::string_view text, const Json::parse_error& error) {
  const size_t end = std::min(error.byte == 0 ? 0 : error.byte - 1, text.size());
  const std::string_view before = text.substr(0, end);
  const size_t last_break = before.rfind('\n');
  Fault fault;
  fault.line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  fault.column = 1 + (last_break == std::string_view::npos ? end : end - last_break - 1);
  // The library's sentence is "[id] parse error at line L, column C: WHAT; last read: '...';
  // expected E".
  std::string what = error.what();
  if (const size_t column = what.find("column "); column != std::string::npos) {
    if (const size_t colon = what.find(": ", column); colon != std::string::npos) {
      what = what.substr(colon + 2);
    }
  }
  if (const size_t read = what.find("; last read: "); read != std::string::npos) {
    const size_t expected = what.rfind("; expected ");
    const bool has_rest = expected != std::string::npos && expected > read;
    what = what.substr(0, read) + (has_rest ? what.substr(expected) : "");
  }
  fault.what = what;
  return fault;
}

Json convert(simdjson::dom::element value);

Json convert_object(simdjson::dom::object fields) {
  Json result = Json::object();
  auto& entries = result.get_ref<Json::object_t&>();
  const size_t count = fields.size();
  entries.reserve(count);
  // ordered_json looks keys up one by one; a vocabulary of 100,000 keys needs a real index. The
  // last of equal keys wins.
  constexpr size_t kIndexed = 32;
  if (count < kIndexed) {
    for (const auto [key, value] : fields) entries[std::string(key)] = convert(value);
    return result;
  }
  std::unordered_map<std::string_view, size_t> index;
  index.reserve(count);
  for (const auto [key, value] : fields) {
    const auto [found, is_new] = index.emplace(key, entries.size());
    if (is_new) {
      entries.emplace_back(std::string(key), convert(value));
    } else {
      (entries.begin() + static_cast<std::ptrdiff_t>(found->second))->second = convert(value);
    }
  }
  return result;
}

Json convert(simdjson::dom::element value) {
  switch (value.type()) {
    case simdjson::dom::element_type::OBJECT:
      return convert_object(value.get_object().value_unsafe());
    case simdjson::dom::element_type::ARRAY: {
      Json result = Json::array();
      const simdjson::dom::array items = value.get_array().value_unsafe();
      for (const simdjson::dom::element item : items) {
        result.push_back(convert(item));
      }
      return result;
    }
    case simdjson::dom::element_type::STRING:
      return std::string(value.get_string().value_unsafe());
    case simdjson::dom::element_type::INT64:
      return value.get_int64().value_unsafe();
    case simdjson::dom::element_type::UINT64:
      return value.get_uint64().value_unsafe();
    case simdjson::dom::element_type::DOUBLE:
      return value.get_double().value_unsafe();
    case simdjson::dom::element_type::BOOL:
      return value.get_bool().value_unsafe();
    case simdjson::dom::element_type::NULL_VALUE:
      break;
  }
  return nullptr;
}

}  // namespace

Json read_json(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw UserError(path.string() + ": is a directory; expected a JSON file");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw UserError(path.string() + ": cannot read: " + std::strerror(errno) +
                    "; expected a JSON file there");
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    const Fault fault = describe(text, error);
    throw UserError(path.string() + ":" + std::to_string(fault.line) + ":" +
                    std::to_string(fault.column) + ": not valid JSON: " + fault.what);
  } catch (const Json::exception& error) {  // a number beyond every type
    throw UserError(path.string() + ": not valid JSON: " + error.what());
  }
}

Json parse_json(std::string_view text, const std::string& where) {
  thread_local simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (parser.parse(text.data(), text.size()).get(root) == simdjson::SUCCESS) return convert(root);
  // simdjson says little about what is wrong, and refuses integers above 64 bits, which are valid
  // JSON. What it refuses for its depth stays refused: walking such a value would end the stack.
  const auto bounded = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > kMaxDepth) {
      throw UserError(where + ": not valid JSON: nested deeper than " + std::to_string(kMaxDepth) +
                      " levels");
    }
    return true;
  };
  try {
    return Json::parse(text, bounded);
  } catch (const Json::parse_error& error) {
    const Fault fault = describe(text, error);
    const std::string line = fault.line == 1 ? "" : "line " + std::to_string(fault.line) + ", ";
    throw UserError(where + ": not valid JSON: " + line + "column " + std::to_string(fault.column) +
                    ": " + fault.what);
  } catch (const Json::exception& error) {
    throw UserError(where + ": not valid JSON: " + error.what());
  }
}

std::string dump_json(const Json& value) { return value.dump(2) + "\n"; }

}  // namespace temper::data
