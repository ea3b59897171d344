#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "data/text/jinja/value.h"

/// Python's arithmetic, subscripts and slices on values.
namespace temper::data::jinja {

/// `op` is one of + - * / // % **. Throws for types that Python does not combine, division by zero
/// and integers beyond 64 bits.
Value arithmetic(std::string_view op, const Value& left, const Value& right);
Value negate(const Value& operand);

/// `object.name`: attribute first, then item. What is absent is undefined; anything of an undefined
/// object throws.
Value get_attribute(const Value& object, const std::string& name);
/// `object[index]`: item first, then attribute.
Value get_item(const Value& object, const Value& index);
/// `object[start:stop:step]`, None for what is left out; code points of a string.
Value slice(const Value& object, const Value& start, const Value& stop, const Value& step);

/// `text % arguments`, as far as %s %r %d %i %f %e %g %x %c and their flags go.
std::string percent_format(std::string_view format, const Value& arguments);

/// The characters & < > ' " as HTML entities, in a safe string; a safe string stays as it is.
Value escape_html(const Value& value);

}  // namespace temper::data::jinja
