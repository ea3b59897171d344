#pragma once

#include <string_view>

#include "data/text/jinja/ast.h"

namespace temper::data::jinja {

/// Parses a template. Throws SyntaxError (lexer.h), also for parts of the language that chat
/// templates have no use for (include, import, extends, block, with, recursive loops) and for
/// unknown filters and tests.
Template parse(std::string_view source);

}  // namespace temper::data::jinja
