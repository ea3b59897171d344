#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "data/io/json.h"

/// The values a template computes with. They behave, compare and print as Python's do, because
/// templates are written against Python: True, 1.0, 1e+20, ['a', {'k': 1}], (1, 2).
///
/// A Value is a cheap handle. Strings, lists and dicts never change after they were made (the
/// sandbox of the reference forbids it); namespaces do, and are Objects.
namespace temper::data::jinja {

/// What goes wrong while rendering; the caller adds the line of the template.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Absent variables and attributes: print nothing, are false, iterate as empty; any other use
/// throws `what`.
struct Undefined {
  std::shared_ptr<const std::string> what;
};

struct None {};

struct String {
  std::shared_ptr<const std::string> text;  // UTF-8
  bool safe =
      false;  // came from `safe` or `escape`: adding a plain string to it escapes that string
};

struct Sequence;
struct Dict;
class Object;

class Value {
 public:
  using Storage =
      std::variant<Undefined, None, bool, int64_t, double, String, std::shared_ptr<Sequence>,
                   std::shared_ptr<Dict>, std::shared_ptr<Object>>;

  Value() = default;  // undefined
  Value(None none) : storage_(none) {}
  Value(bool value) : storage_(value) {}
  Value(int64_t value) : storage_(value) {}
  Value(int value) : storage_(int64_t{value}) {}
  Value(double value) : storage_(value) {}
  Value(std::string text, bool safe = false)
      : storage_(String{std::make_shared<const std::string>(std::move(text)), safe}) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(std::shared_ptr<Sequence> sequence) : storage_(std::move(sequence)) {}
  Value(std::shared_ptr<Dict> dict) : storage_(std::move(dict)) {}
  template <typename T>
  requires std::derived_from<T, Object> Value(std::shared_ptr<T> object)
      : storage_(std::shared_ptr<Object>(std::move(object))) {}

  static Value undefined(std::string what);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  /// What map, select and their kin give: printed opaquely, always true, without a length, and used
  /// up by the first reader.
  static Value generator(std::vector<Value> items);
  static Value range(int64_t start, int64_t stop, int64_t step);
  static Value dict_view(std::string name, std::vector<Value> items);
  static Value from_json(const Json& json);

  bool is_undefined() const { return std::holds_alternative<Undefined>(storage_); }
  bool is_none() const { return std::holds_alternative<None>(storage_); }
  bool is_bool() const { return std::holds_alternative<bool>(storage_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(storage_); }  // not a bool
  bool is_float() const { return std::holds_alternative<double>(storage_); }
  bool is_number() const { return is_bool() || is_integer() || is_float(); }
  bool is_string() const { return std::holds_alternative<String>(storage_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<Dict>>(storage_); }

  /// Each requires the type, except as_integer, which takes a bool as Python does.
  const std::string& text() const { return *std::get<String>(storage_).text; }
  bool safe() const { return is_string() && std::get<String>(storage_).safe; }
  const Dict& dict() const { return *std::get<std::shared_ptr<Dict>>(storage_); }
  int64_t as_integer() const;
  double as_double() const;

  /// Null where the value is of another type.
  const Sequence* sequence() const;
  std::shared_ptr<Object> object() const;

  const Storage& storage() const { return storage_; }

 private:
  Storage storage_;
};

/// Throws for what cannot be a key of a dict.
void require_hashable(const Value& value);

struct Sequence {
  enum class Kind { kList, kTuple, kRange, kDictView, kGenerator };
  Kind kind = Kind::kList;
  std::vector<Value> items;
  std::string repr = {};     // of kinds that print otherwise than their items
  mutable size_t taken = 0;  // of a generator: what was read already
  int depth = 1;             // levels of nesting below and with this one
};

/// Insertion-ordered; keys are any values that Python can hash.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(Value key, Value value);
};

/// Arguments of a call, as written.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

/// Arguments matched to parameter names, as Python does; absent ones are empty. Throws for too
/// many, unknown or doubled ones, and when one of the first `required` is absent.
std::vector<std::optional<Value>> bind(std::string_view callee, const Arguments& arguments,
                                       std::initializer_list<std::string_view> names,
                                       size_t required = 0);

/// Functions, macros, namespaces, the loop variable: what has attributes of its own or can be
/// called.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::optional<Value> attribute(std::string_view) const { return std::nullopt; }
  virtual bool callable() const { return false; }
  virtual Value call(const Arguments& arguments);
  virtual std::string repr(int depth) const = 0;
  virtual int depth() const { return 1; }
};

std::string type_name(const Value& value);  // "str", "list", ... as Python's messages say
bool truthy(const Value& value);
bool equal(const Value& left, const Value& right);
/// Below 0, 0, above 0. Throws for types that Python does not order.
int compare(const Value& left, const Value& right);
/// `needle in haystack`.
bool contains(const Value& haystack, const Value& needle);
/// The items that a for loop would see; uses up a generator. Throws for what cannot be iterated.
std::vector<Value> iterate(const Value& value);
bool iterable(const Value& value);
/// Items of a string in code points. Throws where Python's len() does.
int64_t length(const Value& value);

/// str(value) and repr(value).
std::string to_text(const Value& value);
std::string repr(const Value& value, int depth = 0);
std::string repr_text(std::string_view text);
/// Shortest form that reads back the same, Python's layout: 1.0, 1e+20, 1e-05, inf.
std::string repr_double(double value);

/// Templates are code from strangers: the most bytes in a string, items in a list, and levels of
/// nesting. The checks throw.
inline constexpr size_t kMaxTextBytes = size_t{64} << 20;
inline constexpr size_t kMaxItems = 1'000'000;
inline constexpr int kMaxDepth = 100;
void check_text_size(size_t bytes);

/// Bounds the work of the rendering on this thread while it lives: expressions, items and bytes
/// that are made or looked at. Seconds, whatever the template does.
class WorkLimit {
 public:
  WorkLimit();
  ~WorkLimit();
  WorkLimit(const WorkLimit&) = delete;
  WorkLimit& operator=(const WorkLimit&) = delete;
};
/// Throws when the limit is reached. A unit is about what an item costs.
void spend(uint64_t units);
inline void spend_on_text(size_t bytes) { spend(1 + bytes / 32); }
/// Levels of a container that holds `item`.
int depth_around(const Value& item);

}  // namespace temper::data::jinja
