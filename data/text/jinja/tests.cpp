#include "data/text/jinja/tests.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "data/text/jinja/filters.h"
#include "data/text/jinja/operators.h"
#include "data/text/jinja/string_methods.h"

namespace temper::data::jinja {
namespace {

const Value& other(const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.keyword.empty())
    throw Error("this test takes one argument");
  return arguments.positional[0];
}

void no_arguments(const Arguments& arguments) {
  if (!arguments.positional.empty() || !arguments.keyword.empty())
    throw Error("this test takes no argument");
}

/// A test of the value alone.
template <bool (*predicate)(const Value&)>
bool plain(const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return predicate(value);
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is_bool(); }
bool is_true(const Value& value) { return value.is_bool() && truthy(value); }
bool is_false(const Value& value) { return value.is_bool() && !truthy(value); }
bool is_integer(const Value& value) { return value.is_integer(); }
bool is_float(const Value& value) { return value.is_float(); }
bool is_number(const Value& value) { return value.is_number(); }
bool is_string(const Value& value) { return value.is_string(); }
bool is_mapping(const Value& value) { return value.is_dict(); }
bool is_escaped(const Value& value) { return value.safe(); }
bool is_callable(const Value& value) {  // Undefined can be called, to no good
  return value.is_undefined() || (value.object() && value.object()->callable());
}
bool is_filter(const Value& value) {
  require_hashable(value);
  return value.is_string() && find_filter(value.text());
}
bool is_test(const Value& value) {
  require_hashable(value);
  return value.is_string() && find_test(value.text());
}
bool is_odd(const Value& value) { return equal(arithmetic("%", value, 2), 1); }
bool is_even(const Value& value) { return equal(arithmetic("%", value, 2), 0); }

bool is_sequence(const Value& value) {
  const Sequence* sequence = value.sequence();
  if (sequence)
    return sequence->kind != Sequence::Kind::kGenerator &&
           sequence->kind != Sequence::Kind::kDictView;
  return value.is_undefined() || value.is_string() || value.is_dict();
}

bool is_case(const Value& value, std::string_view method) {
  return truthy(find_string_method(method)->call(method, to_text(value), {}));
}
bool is_lower(const Value& value) { return is_case(value, "islower"); }
bool is_upper(const Value& value) { return is_case(value, "isupper"); }

bool eq(const Value& value, const Arguments& arguments) { return equal(value, other(arguments)); }
bool ne(const Value& value, const Arguments& arguments) { return !equal(value, other(arguments)); }
bool lt(const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) < 0;
}
bool le(const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) <= 0;
}
bool gt(const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) > 0;
}
bool ge(const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) >= 0;
}
bool in(const Value& value, const Arguments& arguments) {
  return contains(other(arguments), value);
}

bool divisible_by(const Value& value, const Arguments& arguments) {
  return equal(arithmetic("%", value, other(arguments)), 0);
}

/// Identity: the same constant, number or string value, or the very same container.
bool same_as(const Value& value, const Arguments& arguments) {
  const Value& second = other(arguments);
  if (value.storage().index() != second.storage().index()) return false;
  if (value.is_dict()) return &value.dict() == &second.dict();
  if (value.sequence()) return value.sequence() == second.sequence();
  return equal(value, second);
}

constexpr Test kTests[] = {
    {"!=", ne},
    {"<", lt},
    {"<=", le},
    {"==", eq},
    {">", gt},
    {">=", ge},
    {"boolean", plain<is_boolean>},
    {"callable", plain<is_callable>},
    {"defined", plain<is_defined>},
    {"divisibleby", divisible_by},
    {"eq", eq},
    {"equalto", eq},
    {"escaped", plain<is_escaped>},
    {"even", plain<is_even>},
    {"false", plain<is_false>},
    {"filter", plain<is_filter>},
    {"float", plain<is_float>},
    {"ge", ge},
    {"greaterthan", gt},
    {"gt", gt},
    {"in", in},
    {"integer", plain<is_integer>},
    {"iterable", plain<iterable>},
    {"le", le},
    {"lessthan", lt},
    {"lower", plain<is_lower>},
    {"lt", lt},
    {"mapping", plain<is_mapping>},
    {"ne", ne},
    {"none", plain<is_none>},
    {"number", plain<is_number>},
    {"odd", plain<is_odd>},
    {"sameas", same_as},
    {"sequence", plain<is_sequence>},
    {"string", plain<is_string>},
    {"test", plain<is_test>},
    {"true", plain<is_true>},
    {"undefined", plain<is_undefined>},
    {"upper", plain<is_upper>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto found = std::find_if(std::begin(kTests), std::end(kTests),
                                  [&](const Test& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace temper::data::jinja
