#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "data/text/jinja/value.h"

namespace temper::data::jinja {

/// What `namespace(...)` makes: the one value that a template can change.
class Namespace : public Object {
 public:
  /// Throws for names that begin with an underscore.
  void set(const std::string& name, Value value);
  void clear() { attributes_.entries.clear(); }
  std::optional<Value> attribute(std::string_view name) const override;
  std::string repr(int depth) const override;
  int depth() const override { return attributes_.depth; }

 private:
  Dict attributes_;
};

/// Functions that every template has: range, dict, namespace, cycler, joiner, raise_exception,
/// strftime_now. Namespaces that are made enter `namespaces`, so that the render can untie cycles
/// among them when it ends.
std::vector<std::pair<std::string, Value>> make_globals(
    std::vector<std::weak_ptr<Namespace>>& namespaces);

}  // namespace temper::data::jinja
