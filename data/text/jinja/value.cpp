#include "data/text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

constexpr uint64_t kMaxWork = 100'000'000;
constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
thread_local uint64_t work_left = kUnlimited;

std::shared_ptr<Sequence> make_sequence(Sequence::Kind kind, std::vector<Value> items) {
  spend(items.size());
  if (items.size() > kMaxItems)
    throw Error("a list of more than " + std::to_string(kMaxItems) + " items");
  auto sequence = std::make_shared<Sequence>(Sequence{.kind = kind, .items = std::move(items)});
  for (const Value& item : sequence->items)
    sequence->depth = std::max(sequence->depth, depth_around(item));
  return sequence;
}

Value from_json_at(const Json& json, int depth) {
  if (depth > kMaxDepth) throw Error("data nested deeper than " + std::to_string(kMaxDepth));
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_unsigned: {
      const uint64_t number = json.get<uint64_t>();
      if (number > uint64_t(std::numeric_limits<int64_t>::max())) {
        throw Error("the number " + std::to_string(number) +
                    " is above the largest integer templates may use");
      }
      return int64_t(number);
    }
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return json.get_ref<const std::string&>();
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(from_json_at(item, depth + 1));
      return Value::list(std::move(items));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, item] : json.items()) {
        dict->entries.emplace_back(key, from_json_at(item, depth + 1));
        dict->depth = std::max(dict->depth, depth_around(dict->entries.back().second));
      }
      return dict;
    }
    default:
      return None{};
  }
}

[[noreturn]] void throw_undefined(const Value& value) {
  const auto& what = std::get<Undefined>(value.storage()).what;
  throw Error(what ? *what : "a value is undefined");
}

int compare_sequences(const Sequence& left, const Sequence& right) {
  const size_t shared = std::min(left.items.size(), right.items.size());
  for (size_t i = 0; i < shared; ++i) {
    if (!equal(left.items[i], right.items[i])) return compare(left.items[i], right.items[i]);
  }
  return left.items.size() < right.items.size() ? -1 : left.items.size() > right.items.size();
}

}  // namespace

Value Value::undefined(std::string what) {
  Value value;
  value.storage_ = Undefined{std::make_shared<const std::string>(std::move(what))};
  return value;
}

Value Value::list(std::vector<Value> items) {
  return make_sequence(Sequence::Kind::kList, std::move(items));
}

Value Value::tuple(std::vector<Value> items) {
  return make_sequence(Sequence::Kind::kTuple, std::move(items));
}

Value Value::generator(std::vector<Value> items) {
  auto sequence = make_sequence(Sequence::Kind::kGenerator, std::move(items));
  sequence->repr = "<generator object>";
  return sequence;
}

Value Value::range(int64_t start, int64_t stop, int64_t step) {
  constexpr uint64_t kMaxRange = 100'000;  // the reference's sandbox
  if (step == 0) throw Error("range() arg 3 must not be zero");
  const bool empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t span = empty      ? 0
                        : step > 0 ? uint64_t(stop) - uint64_t(start)
                                   : uint64_t(start) - uint64_t(stop);
  const uint64_t stride = step > 0 ? uint64_t(step) : uint64_t(0) - uint64_t(step);
  const uint64_t count = span == 0 ? 0 : (span - 1) / stride + 1;
  if (count > kMaxRange)
    throw Error("range too big: the sandbox allows " + std::to_string(kMaxRange) + " items");
  std::vector<Value> items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i)
    items.emplace_back(int64_t(uint64_t(start) + i * uint64_t(step)));
  auto sequence = make_sequence(Sequence::Kind::kRange, std::move(items));
  sequence->repr = "range(" + std::to_string(start) + ", " + std::to_string(stop) +
                   (step == 1 ? "" : ", " + std::to_string(step)) + ")";
  return sequence;
}

Value Value::dict_view(std::string name, std::vector<Value> items) {
  auto sequence = make_sequence(Sequence::Kind::kDictView, std::move(items));
  sequence->repr = std::move(name);
  return sequence;
}

Value Value::from_json(const Json& json) { return from_json_at(json, 0); }

int64_t Value::as_integer() const {
  if (is_bool()) return std::get<bool>(storage_);
  if (is_integer()) return std::get<int64_t>(storage_);
  if (is_undefined()) throw_undefined(*this);
  throw Error("'" + type_name(*this) + "' cannot be used as an integer");
}

double Value::as_double() const {
  return is_float() ? std::get<double>(storage_) : double(as_integer());
}

const Sequence* Value::sequence() const {
  const auto* held = std::get_if<std::shared_ptr<Sequence>>(&storage_);
  return held ? held->get() : nullptr;
}

std::shared_ptr<Object> Value::object() const {
  const auto* held = std::get_if<std::shared_ptr<Object>>(&storage_);
  return held ? *held : nullptr;
}

void require_hashable(const Value& value) {
  const Sequence* sequence = value.sequence();
  if (value.is_dict() || (sequence && sequence->kind == Sequence::Kind::kList))
    throw Error("unhashable type: '" + type_name(value) + "'");
}

const Value* Dict::find(const Value& key) const {
  spend(entries.size());
  for (const auto& [name, value] : entries) {
    if (equal(name, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  spend(entries.size() / 4);
  for (const auto& [name, value] : entries) {
    if (name.is_string() && name.text() == key) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  require_hashable(key);
  spend(entries.size());
  depth = std::max({depth, depth_around(key), depth_around(value)});
  for (auto& [name, old] : entries) {
    if (equal(name, key)) {
      old = std::move(value);
      return;
    }
  }
  entries.emplace_back(std::move(key), std::move(value));
}

std::vector<std::optional<Value>> bind(std::string_view callee, const Arguments& arguments,
                                       std::initializer_list<std::string_view> names,
                                       size_t required) {
  if (arguments.positional.size() > names.size()) {
    throw Error(std::string(callee) + "() takes at most " + std::to_string(names.size()) +
                " arguments (" + std::to_string(arguments.positional.size()) + " given)");
  }
  std::vector<std::optional<Value>> bound(arguments.positional.begin(), arguments.positional.end());
  bound.resize(names.size());
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
      throw Error(std::string(callee) + "() got an unexpected keyword argument '" + name + "'");
    }
    auto& slot = bound[size_t(found - names.begin())];
    if (slot)
      throw Error(std::string(callee) + "() got multiple values for argument '" + name + "'");
    slot = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound[i]) {
      throw Error(std::string(callee) + "() misses the argument '" +
                  std::string(*(names.begin() + std::ptrdiff_t(i))) + "'");
    }
  }
  return bound;
}

Value Object::call(const Arguments&) { throw Error("'" + repr(0) + "' is not callable"); }

std::string type_name(const Value& value) {
  struct Namer {
    std::string operator()(const Undefined&) const { return "Undefined"; }
    std::string operator()(const None&) const { return "NoneType"; }
    std::string operator()(bool) const { return "bool"; }
    std::string operator()(int64_t) const { return "int"; }
    std::string operator()(double) const { return "float"; }
    std::string operator()(const String&) const { return "str"; }
    std::string operator()(const std::shared_ptr<Dict>&) const { return "dict"; }
    std::string operator()(const std::shared_ptr<Object>&) const { return "object"; }
    std::string operator()(const std::shared_ptr<Sequence>& sequence) const {
      switch (sequence->kind) {
        case Sequence::Kind::kTuple:
          return "tuple";
        case Sequence::Kind::kRange:
          return "range";
        case Sequence::Kind::kDictView:
          return "dict view";
        case Sequence::Kind::kGenerator:
          return "generator";
        default:
          return "list";
      }
    }
  };
  return std::visit(Namer{}, value.storage());
}

bool truthy(const Value& value) {
  struct Truth {
    bool operator()(const Undefined&) const { return false; }
    bool operator()(const None&) const { return false; }
    bool operator()(bool flag) const { return flag; }
    bool operator()(int64_t number) const { return number != 0; }
    bool operator()(double number) const { return number != 0; }
    bool operator()(const String& string) const { return !string.text->empty(); }
    bool operator()(const std::shared_ptr<Dict>& dict) const { return !dict->entries.empty(); }
    bool operator()(const std::shared_ptr<Object>&) const { return true; }
    bool operator()(const std::shared_ptr<Sequence>& sequence) const {
      return sequence->kind == Sequence::Kind::kGenerator || !sequence->items.empty();
    }
  };
  return std::visit(Truth{}, value.storage());
}

bool equal(const Value& left, const Value& right) {
  spend(1);
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float()) return left.as_double() == right.as_double();
    return left.as_integer() == right.as_integer();
  }
  if (left.storage().index() != right.storage().index()) return false;
  if (left.is_undefined() || left.is_none()) return true;
  if (left.is_string()) {
    spend_on_text(left.text().size());
    return left.text() == right.text();
  }
  if (left.is_dict()) {
    const Dict& a = left.dict();
    const Dict& b = right.dict();
    return a.entries.size() == b.entries.size() &&
           std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
             const Value* other = b.find(entry.first);
             return other && equal(entry.second, *other);
           });
  }
  if (const Sequence* a = left.sequence()) {
    const Sequence* b = right.sequence();
    if (a == b) return true;
    return a->kind == b->kind && a->kind != Sequence::Kind::kGenerator &&
           std::equal(a->items.begin(), a->items.end(), b->items.begin(), b->items.end(), equal);
  }
  return left.object() == right.object();
}

int compare(const Value& left, const Value& right) {
  spend(1);
  if (left.is_undefined()) throw_undefined(left);
  if (right.is_undefined()) throw_undefined(right);
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float()) {
      const double a = left.as_double(), b = right.as_double();
      return a < b ? -1 : a > b;
    }
    const int64_t a = left.as_integer(), b = right.as_integer();
    return a < b ? -1 : a > b;
  }
  // UTF-8 orders bytes as code points.
  if (left.is_string() && right.is_string()) return left.text().compare(right.text());
  const Sequence* a = left.sequence();
  const Sequence* b = right.sequence();
  if (a && b && a->kind == b->kind &&
      (a->kind == Sequence::Kind::kList || a->kind == Sequence::Kind::kTuple)) {
    return compare_sequences(*a, *b);
  }
  throw Error("'" + type_name(left) + "' and '" + type_name(right) + "' cannot be ordered");
}

bool contains(const Value& haystack, const Value& needle) {
  if (haystack.is_string()) {
    if (!needle.is_string()) {
      throw Error("'in <string>' requires a string on the left, not '" + type_name(needle) + "'");
    }
    spend_on_text(haystack.text().size());
    return haystack.text().find(needle.text()) != std::string::npos;
  }
  if (haystack.is_dict()) {
    require_hashable(needle);
    return haystack.dict().find(needle) != nullptr;
  }
  const std::vector<Value> items = iterate(haystack);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& item) { return equal(item, needle); });
}

bool iterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_dict() || value.sequence();
}

std::vector<Value> iterate(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_string()) {
    spend(value.text().size());
    std::vector<Value> characters;
    for (std::string_view rest = value.text(); !rest.empty();) {
      const size_t bytes = utf8_length(rest);
      characters.emplace_back(rest.substr(0, bytes));
      rest.remove_prefix(bytes);
    }
    return characters;
  }
  if (value.is_dict()) {
    std::vector<Value> keys;
    for (const auto& [key, item] : value.dict().entries) keys.push_back(key);
    return keys;
  }
  const Sequence* sequence = value.sequence();
  if (!sequence) throw Error("'" + type_name(value) + "' object is not iterable");
  spend(sequence->items.size());
  if (sequence->kind != Sequence::Kind::kGenerator) return sequence->items;
  std::vector<Value> rest(sequence->items.begin() + std::ptrdiff_t(sequence->taken),
                          sequence->items.end());
  sequence->taken = sequence->items.size();
  return rest;
}

int64_t length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) {
    spend_on_text(value.text().size());
    return int64_t(utf8_count(value.text()));
  }
  if (value.is_dict()) return int64_t(value.dict().entries.size());
  const Sequence* sequence = value.sequence();
  if (!sequence || sequence->kind == Sequence::Kind::kGenerator) {
    throw Error("object of type '" + type_name(value) + "' has no length");
  }
  return int64_t(sequence->items.size());
}

int depth_around(const Value& item) {
  const Sequence* sequence = item.sequence();
  const int inner = sequence         ? sequence->depth
                    : item.is_dict() ? item.dict().depth
                    : item.object()  ? item.object()->depth()
                                     : 0;
  if (inner >= kMaxDepth)
    throw Error("values nested deeper than " + std::to_string(kMaxDepth) + " levels");
  return inner + 1;
}

WorkLimit::WorkLimit() { work_left = kMaxWork; }
WorkLimit::~WorkLimit() { work_left = kUnlimited; }

void spend(uint64_t units) {
  if (units > work_left) throw Error("the template runs too long");
  work_left -= units;
}

void check_text_size(size_t bytes) {
  if (bytes > kMaxTextBytes) {
    throw Error("the template makes more than " + std::to_string(kMaxTextBytes >> 20) +
                " MiB of text");
  }
}

}  // namespace temper::data::jinja
