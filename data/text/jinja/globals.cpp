#include "data/text/jinja/globals.h"

#include <charconv>
#include <cstdlib>
#include <ctime>

#include "data/text/jinja/methods.h"

namespace temper::data::jinja {
namespace {

/// dict(mapping or pairs, key=value, ...)
std::shared_ptr<Dict> make_dict(std::string_view callee, const Arguments& arguments) {
  if (arguments.positional.size() > 1)
    throw Error(std::string(callee) + "() takes at most one positional argument");
  auto dict = std::make_shared<Dict>();
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is_dict()) {
      *dict = source.dict();
    } else {
      for (const Value& item : iterate(source)) {
        std::vector<Value> pair = iterate(item);
        if (pair.size() != 2) throw Error(std::string(callee) + "() needs pairs");
        dict->set(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) dict->set(name, value);
  return dict;
}

Value make_range(const Arguments& arguments) {
  if (!arguments.keyword.empty() || arguments.positional.empty() ||
      arguments.positional.size() > 3) {
    throw Error("range() takes one to three positional arguments");
  }
  const std::vector<Value>& given = arguments.positional;
  for (const Value& value : given) {
    if (value.is_float()) throw Error("'float' object cannot be interpreted as an integer");
  }
  if (given.size() == 1) return Value::range(0, given[0].as_integer(), 1);
  return Value::range(given[0].as_integer(), given[1].as_integer(),
                      given.size() == 3 ? given[2].as_integer() : 1);
}

/// cycler('a', 'b').next()
class Cycler : public Object, public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}

  std::optional<Value> attribute(std::string_view name) const override {
    if (name == "current") return items_[position_];
    if (name != "next" && name != "reset") return std::nullopt;
    const bool advances = name == "next";
    auto self = std::const_pointer_cast<Cycler>(shared_from_this());
    return std::make_shared<Function>(
        std::string(name), [self, advances](const Arguments&) -> Value {
          const Value shown = self->items_[self->position_];
          self->position_ = advances ? (self->position_ + 1) % self->items_.size() : 0;
          return advances ? shown : Value(None{});
        });
  }
  std::string repr(int) const override { return "<Cycler>"; }

 private:
  std::vector<Value> items_;
  size_t position_ = 0;
};

/// joiner(', '): nothing when called first, the separator from then on.
class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  bool callable() const override { return true; }
  Value call(const Arguments&) override {
    return std::exchange(used_, true) ? separator_ : Value("");
  }
  std::string repr(int) const override { return "<Joiner>"; }

 private:
  Value separator_;
  bool used_ = false;
};

/// The time that strftime_now shows: SOURCE_DATE_EPOCH (in UTC) when that is set, else the local
/// time.
std::tm clock_time() {
  std::tm fields{};
  const char* epoch = std::getenv("SOURCE_DATE_EPOCH");
  if (!epoch || !*epoch) {
    const std::time_t now = std::time(nullptr);
    localtime_r(&now, &fields);
    return fields;
  }
  int64_t seconds = 0;
  const std::string_view text = epoch;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc{} || end != text.data() + text.size()) {
    throw Error("SOURCE_DATE_EPOCH = '" + std::string(text) + "': must be seconds since 1970");
  }
  const std::time_t fixed = seconds;
  gmtime_r(&fixed, &fields);
  return fields;
}

Value strftime_now(const Arguments& arguments) {
  const std::string format = to_text(*bind("strftime_now", arguments, {"format"}, 1)[0]);
  if (format.empty()) return "";
  const std::tm fields = clock_time();
  std::string out(format.size() * 4 + 256, '\0');
  const size_t written = std::strftime(out.data(), out.size(), format.c_str(), &fields);
  out.resize(written);
  return out;
}

Value raise_exception(const Arguments& arguments) {
  throw Error(to_text(*bind("raise_exception", arguments, {"message"}, 1)[0]));
}

Value function(std::string name, std::function<Value(const Arguments&)> body) {
  return std::make_shared<Function>(std::move(name), std::move(body));
}

}  // namespace

void Namespace::set(const std::string& name, Value value) {
  if (name.starts_with('_'))
    throw Error("namespace attributes must not begin with an underscore: '" + name + "'");
  attributes_.set(name, std::move(value));
}

std::optional<Value> Namespace::attribute(std::string_view name) const {
  const Value* found = attributes_.find(name);
  return found ? std::optional(*found) : std::nullopt;
}

std::string Namespace::repr(int depth) const {
  return "<Namespace " + jinja::repr(std::make_shared<Dict>(attributes_), depth + 1) + ">";
}

std::vector<std::pair<std::string, Value>> make_globals(
    std::vector<std::weak_ptr<Namespace>>& namespaces) {
  std::vector<std::pair<std::string, Value>> globals;
  const auto add = [&](std::string name, std::function<Value(const Arguments&)> body) {
    Value value = function(name, std::move(body));
    globals.emplace_back(std::move(name), std::move(value));
  };
  add("range", make_range);
  add("dict", [](const Arguments& arguments) -> Value { return make_dict("dict", arguments); });
  add("raise_exception", raise_exception);
  add("strftime_now", strftime_now);
  add("joiner", [](const Arguments& arguments) -> Value {
    return std::make_shared<Joiner>(bind("joiner", arguments, {"sep"})[0].value_or(", "));
  });
  add("cycler", [](const Arguments& arguments) -> Value {
    if (arguments.positional.empty())
      throw Error("at least one item has to be provided to cycler()");
    return std::make_shared<Cycler>(arguments.positional);
  });
  add("namespace", [&namespaces](const Arguments& arguments) -> Value {
    auto made = std::make_shared<Namespace>();
    const auto attributes = make_dict("namespace", arguments);
    for (const auto& [name, value] : attributes->entries) made->set(to_text(name), value);
    namespaces.push_back(made);
    return made;
  });
  return globals;
}

}  // namespace temper::data::jinja
