#pragma once

#include <string>
#include <utility>
#include <vector>

#include "data/text/jinja/ast.h"

namespace temper::data::jinja {

struct Rendering {
  std::string text;
  /// Bytes of `text` that generation blocks enclosed, in the order in which they closed.
  std::vector<std::pair<size_t, size_t>> generation_spans;
};

/// A failure at a place of the template.
class RenderError : public Error {
 public:
  RenderError(const std::string& what, Place place) : Error(what), at(place) {}
  Place at;
};

/// Runs a template with these variables; built-in functions (range, namespace, raise_exception,
/// ...) are added. Bounded in output, work and recursion. Throws RenderError.
Rendering render(const Template& parsed, std::vector<std::pair<std::string, Value>> variables);

}  // namespace temper::data::jinja
