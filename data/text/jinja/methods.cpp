#include "data/text/jinja/methods.h"

#include <algorithm>
#include <iterator>

#include "data/text/jinja/operators.h"
#include "data/text/jinja/string_methods.h"

namespace temper::data::jinja {
namespace {

Value dict_method(const Dict& dict, std::string_view name, const Arguments& arguments) {
  if (name == "get") {
    const auto bound = bind("get", arguments, {"key", "default"}, 1);
    require_hashable(*bound[0]);
    if (const Value* found = dict.find(*bound[0])) return *found;
    return bound[1].value_or(None{});
  }
  bind(name, arguments, {});
  if (name == "copy") return std::make_shared<Dict>(dict);
  std::vector<Value> items;
  items.reserve(dict.entries.size());
  for (const auto& [key, value] : dict.entries) {
    items.push_back(name == "keys" ? key : name == "values" ? value : Value::tuple({key, value}));
  }
  return Value::dict_view("dict_" + std::string(name), std::move(items));
}

Value sequence_method(const Value& sequence, std::string_view name, const Arguments& arguments) {
  const std::vector<Value>& items = sequence.sequence()->items;
  if (name == "copy") {
    bind(name, arguments, {});
    return Value::list(items);
  }
  const Value wanted = *bind(name, arguments, {"value"}, 1)[0];
  const auto matches = [&](const Value& item) { return equal(item, wanted); };
  if (name == "count") return int64_t(std::count_if(items.begin(), items.end(), matches));
  const auto found = std::find_if(items.begin(), items.end(), matches);
  if (found == items.end()) throw Error(repr(wanted) + " is not in the list");
  return int64_t(found - items.begin());
}

template <size_t N>
bool among(std::string_view name, const std::string_view (&names)[N]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Value unsafe(const Value& object, const std::string& name) {
  return Value::undefined("access to attribute '" + name + "' of '" + type_name(object) +
                          "' object is unsafe");
}

}  // namespace

std::optional<Value> find_attribute(const Value& object, const std::string& name) {
  static constexpr std::string_view kDict[] = {"get", "items", "keys", "values", "copy"};
  static constexpr std::string_view kDictChanging[] = {"clear", "pop", "popitem", "setdefault",
                                                       "update"};
  static constexpr std::string_view kList[] = {"index", "count", "copy"};
  static constexpr std::string_view kListChanging[] = {"append", "clear", "pop",    "reverse",
                                                       "insert", "sort",  "extend", "remove"};
  if (auto held = object.object()) return held->attribute(name);
  if (object.is_dict()) {
    if (among(name, kDictChanging)) return unsafe(object, name);
    if (!among(name, kDict)) return std::nullopt;
    return std::make_shared<Function>(name, [object, name](const Arguments& arguments) {
      return dict_method(object.dict(), name, arguments);
    });
  }
  if (object.is_string()) {
    const StringMethod* method = find_string_method(name);
    if (!method) return std::nullopt;
    return std::make_shared<Function>(name, [object, method](const Arguments& arguments) {
      return call_string_method(*method, object, arguments);
    });
  }
  const Sequence* sequence = object.sequence();
  if (!sequence || sequence->kind == Sequence::Kind::kGenerator ||
      sequence->kind == Sequence::Kind::kDictView)
    return std::nullopt;
  const bool is_list = sequence->kind == Sequence::Kind::kList;
  if (is_list && among(name, kListChanging)) return unsafe(object, name);
  if (!among(name, kList) || (name == "copy" && !is_list)) return std::nullopt;
  return std::make_shared<Function>(name, [object, name](const Arguments& arguments) {
    return sequence_method(object, name, arguments);
  });
}

}  // namespace temper::data::jinja
