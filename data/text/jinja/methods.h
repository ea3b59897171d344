#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "data/text/jinja/value.h"

namespace temper::data::jinja {

/// A function of ours that templates call.
class Function : public Object {
 public:
  Function(std::string name, std::function<Value(const Arguments&)> body)
      : name_(std::move(name)), body_(std::move(body)) {}
  bool callable() const override { return true; }
  Value call(const Arguments& arguments) override { return body_(arguments); }
  std::string repr(int) const override { return "<function " + name_ + ">"; }

 private:
  std::string name_;
  std::function<Value(const Arguments&)> body_;
};

/// What Python's getattr finds on a value: a method of str, list, tuple or dict bound to it, or an
/// object's own attribute. Methods that would change a list or dict are undefined (the sandbox).
/// Empty where there is no such attribute.
std::optional<Value> find_attribute(const Value& object, const std::string& name);

/// str.replace with a count (below 0: all).
std::string replace_text(std::string_view text, std::string_view from, std::string_view to,
                         int64_t count);

}  // namespace temper::data::jinja
