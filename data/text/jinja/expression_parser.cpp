#include "data/text/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>

#include "data/text/jinja/filters.h"
#include "data/text/jinja/tests.h"

namespace temper::data::jinja {
namespace {

constexpr int kMaxNesting = 150;
constexpr int kMaxChain = 1000;

template <typename Node>
ExprPtr make(Place at, Node node) {
  return std::make_unique<Expr>(Expr{at, std::move(node)});
}

}  // namespace

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (parser_.depth_ >= kMaxNesting)
    parser_.fail("nested deeper than " + std::to_string(kMaxNesting) + " levels");
  ++parser_.depth_;
}

bool ExpressionParser::skip_operator(std::string_view text) {
  const bool found = is_operator(text);
  if (found) next();
  return found;
}

bool ExpressionParser::skip_name(std::string_view text) {
  const bool found = is_name(text);
  if (found) next();
  return found;
}

void ExpressionParser::expect_operator(std::string_view text) {
  if (!skip_operator(text)) fail("expected '" + std::string(text) + "'");
}

void ExpressionParser::expect_name(std::string_view text) {
  if (!skip_name(text)) fail("expected '" + std::string(text) + "'");
}

void ExpressionParser::expect_kind(Token::Kind kind, const std::string& what) {
  if (current().kind != kind)
    fail("expected " + what + (current().text.empty() ? "" : ", found '" + current().text + "'"));
  next();
}

std::string ExpressionParser::expect_any_name() {
  std::string name = current().text;
  expect_kind(Token::Kind::kName, "a name");
  return name;
}

bool ExpressionParser::at_tuple_end() const {
  return current().kind == Token::Kind::kOutputEnd || current().kind == Token::Kind::kBlockEnd ||
         is_operator(")");
}

void ExpressionParser::bound_chain(int& length) const {
  if (++length > kMaxChain)
    fail("an expression of more than " + std::to_string(kMaxChain) + " operands");
}

ExprPtr ExpressionParser::tuple_or_expression(bool with_conditional, bool parenthesised) {
  const Place at = here();
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end()) {
    items.push_back(with_conditional ? conditional() : logical_or());
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return std::move(items[0]);
  if (items.empty() && !parenthesised) fail("expected an expression");
  return make(at, TupleDisplay{std::move(items)});
}

ExprPtr ExpressionParser::conditional() {
  const Nesting nesting(*this);
  const Place at = here();
  ExprPtr then = logical_or();
  int chain = 0;
  while (skip_name("if")) {
    bound_chain(chain);
    ++conditional_depth_;
    ExprPtr condition = logical_or();
    ExprPtr otherwise = skip_name("else") ? conditional() : nullptr;
    --conditional_depth_;
    then = make(at, Conditional{std::move(condition), std::move(then), std::move(otherwise)});
  }
  return then;
}

ExprPtr ExpressionParser::logical_or() {
  const Place at = here();
  ExprPtr left = logical_and();
  int chain = 0;
  while (skip_name("or")) {
    bound_chain(chain);
    ExprPtr right = logical_and();
    left = make(at, Logical{false, std::move(left), std::move(right)});
  }
  return left;
}

ExprPtr ExpressionParser::logical_and() {
  const Place at = here();
  ExprPtr left = logical_not();
  int chain = 0;
  while (skip_name("and")) {
    bound_chain(chain);
    ExprPtr right = logical_not();
    left = make(at, Logical{true, std::move(left), std::move(right)});
  }
  return left;
}

ExprPtr ExpressionParser::logical_not() {
  const Nesting nesting(*this);
  const Place at = here();
  if (skip_name("not")) return make(at, Not{logical_not()});
  return comparison();
}

ExprPtr ExpressionParser::comparison() {
  static constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  const Place at = here();
  ExprPtr first = sum();
  std::vector<std::pair<std::string, ExprPtr>> rest;
  for (;;) {
    std::string op;
    if (current().kind == Token::Kind::kOperator &&
        std::find(std::begin(kOperators), std::end(kOperators), current().text) !=
            std::end(kOperators)) {
      op = current().text;
      next();
    } else if (skip_name("in")) {
      op = "in";
    } else if (is_name("not") && look().kind == Token::Kind::kName && look().text == "in") {
      next();
      next();
      op = "not in";
    } else {
      break;
    }
    rest.emplace_back(std::move(op), sum());
  }
  if (rest.empty()) return first;
  return make(at, Comparison{std::move(first), std::move(rest)});
}

ExprPtr ExpressionParser::sum() {
  const Place at = here();
  ExprPtr left = concatenation();
  int chain = 0;
  while (is_operator("+") || is_operator("-")) {
    bound_chain(chain);
    const std::string op = current().text;
    next();
    ExprPtr right = concatenation();
    left = make(at, Arithmetic{op, std::move(left), std::move(right)});
  }
  return left;
}

ExprPtr ExpressionParser::concatenation() {
  const Place at = here();
  std::vector<ExprPtr> parts;
  do parts.push_back(product());
  while (skip_operator("~"));
  if (parts.size() == 1) return std::move(parts[0]);
  return make(at, Concatenation{std::move(parts)});
}

ExprPtr ExpressionParser::product() {
  const Place at = here();
  ExprPtr left = power();
  int chain = 0;
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    bound_chain(chain);
    const std::string op = current().text;
    next();
    ExprPtr right = power();
    left = make(at, Arithmetic{op, std::move(left), std::move(right)});
  }
  return left;
}

ExprPtr ExpressionParser::power() {
  const Place at = here();
  ExprPtr left = unary();
  int chain = 0;
  while (skip_operator("**")) {
    bound_chain(chain);
    ExprPtr right = unary();
    left = make(at, Arithmetic{"**", std::move(left), std::move(right)});
  }
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  const Nesting nesting(*this);
  const Place at = here();
  ExprPtr operand;
  if (skip_operator("-"))
    operand = make(at, Sign{true, unary(false)});
  else if (skip_operator("+"))
    operand = make(at, Sign{false, unary(false)});
  else
    operand = primary();
  operand = postfix(std::move(operand));
  return with_filters ? filters_and_tests(std::move(operand)) : std::move(operand);
}

ExprPtr ExpressionParser::primary() {
  const Token& token = current();
  switch (token.kind) {
    case Token::Kind::kName:
      return name_or_constant();
    case Token::Kind::kString: {
      std::string text;
      for (; current().kind == Token::Kind::kString; next()) text += current().text;
      return make(place_of(token), Literal{std::move(text)});
    }
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return number();
    default:
      break;
  }
  if (skip_operator("(")) {
    ExprPtr inner = tuple_or_expression(true, /*parenthesised=*/true);
    expect_operator(")");
    return inner;
  }
  if (is_operator("[")) return list();
  if (is_operator("{")) return dict();
  fail(token.text.empty() ? "expected an expression" : "unexpected '" + token.text + "'");
}

ExprPtr ExpressionParser::name_or_constant() {
  const Token& token = current();
  next();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make(place_of(token), Literal{true});
  if (name == "false" || name == "False") return make(place_of(token), Literal{false});
  if (name == "none" || name == "None") return make(place_of(token), Literal{None{}});
  if (macro_) {
    macro_->takes_varargs |= name == "varargs";
    macro_->takes_kwargs |= name == "kwargs";
    macro_->takes_caller |= name == "caller";
  }
  return make(place_of(token), Name{name});
}

ExprPtr ExpressionParser::number() {
  const Token& token = current();
  next();
  const char* begin = token.text.data();
  const char* end = begin + token.text.size();
  if (token.kind == Token::Kind::kFloat) {
    double value = 0;
    std::from_chars(begin, end, value);
    return make(place_of(token), Literal{value});
  }
  int base = 10;
  if (token.text.size() > 2 && begin[0] == '0' &&
      !std::isdigit(static_cast<unsigned char>(begin[1]))) {
    base = begin[1] == 'x' || begin[1] == 'X' ? 16 : begin[1] == 'o' || begin[1] == 'O' ? 8 : 2;
    begin += 2;
  }
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(begin, end, value, base);
  if (error != std::errc{} || stop != end)
    fail_at(token, "'" + token.text + "' is not a number this reads");
  return make(place_of(token), Literal{value});
}

ExprPtr ExpressionParser::list() {
  const Place at = here();
  expect_operator("[");
  std::vector<ExprPtr> items;
  while (!is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("]")) break;
    items.push_back(expression());
  }
  expect_operator("]");
  return make(at, ListDisplay{std::move(items)});
}

ExprPtr ExpressionParser::dict() {
  const Place at = here();
  expect_operator("{");
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
  while (!is_operator("}")) {
    if (!entries.empty()) expect_operator(",");
    if (is_operator("}")) break;
    ExprPtr key = expression();
    expect_operator(":");
    entries.emplace_back(std::move(key), expression());
  }
  expect_operator("}");
  return make(at, DictDisplay{std::move(entries)});
}

ExprPtr ExpressionParser::postfix(ExprPtr operand) {
  int chain = 0;
  for (;;) {
    bound_chain(chain);
    if (skip_operator(".")) {
      const Place at = here();
      if (current().kind == Token::Kind::kInteger) {
        ExprPtr index = number();
        operand = make(at, Subscript{std::move(operand), std::move(index)});
      } else {
        operand = make(at, Attribute{std::move(operand), expect_any_name()});
      }
    } else if (is_operator("[")) {
      operand = subscript(std::move(operand));
    } else if (is_operator("(")) {
      const Place at = operand->at;
      operand = make(at, Call{std::move(operand), arguments()});
    } else {
      return operand;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr operand) {
  const Place at = here();
  expect_operator("[");
  const auto part = [&]() -> ExprPtr {
    return is_operator(":") || is_operator("]") ? nullptr : expression();
  };
  if (is_operator("]")) fail("an empty subscript");
  ExprPtr start = part();
  ExprPtr result;
  if (skip_operator(":")) {
    ExprPtr stop = part();
    ExprPtr step = skip_operator(":") ? part() : nullptr;
    result =
        make(at, Slice{std::move(operand), std::move(start), std::move(stop), std::move(step)});
  } else {
    result = make(at, Subscript{std::move(operand), std::move(start)});
  }
  expect_operator("]");
  return result;
}

ExprPtr ExpressionParser::filters_and_tests(ExprPtr operand) {
  int chain = 0;
  for (;;) {
    bound_chain(chain);
    if (skip_operator("|")) {
      const Place at = here();
      operand = make(at, filter(std::move(operand)));
    } else if (skip_name("is")) {
      operand = test(std::move(operand));
    } else if (is_operator("(")) {
      const Place at = operand->at;
      operand = make(at, Call{std::move(operand), arguments()});
    } else {
      return operand;
    }
  }
}

FilterUse ExpressionParser::filter(ExprPtr input) {
  const Token token = current();
  FilterUse use{std::move(input), expect_any_name(), {}};
  if (!find_filter(use.name) && conditional_depth_ == 0)
    fail_at(token, "unknown filter '" + use.name + "'");
  if (is_operator("(")) use.arguments = arguments();
  return use;
}

ExprPtr ExpressionParser::test(ExprPtr operand) {
  const Place at = here();
  const bool negated = skip_name("not");
  const Token token = current();
  TestUse use{std::move(operand), expect_any_name(), {}};
  if (!find_test(use.name) && conditional_depth_ == 0)
    fail_at(token, "unknown test '" + use.name + "'");
  const Token::Kind kind = current().kind;
  if (is_operator("(")) {
    use.arguments = arguments();
  } else if (is_operator("[") || is_operator("{") || kind == Token::Kind::kString ||
             kind == Token::Kind::kInteger || kind == Token::Kind::kFloat ||
             (kind == Token::Kind::kName && !is_name("else") && !is_name("or") &&
              !is_name("and"))) {
    if (is_name("is")) fail("tests cannot be chained with 'is'");
    use.arguments.push_back({Argument::Kind::kPositional, {}, postfix(primary())});
  }
  ExprPtr result = make(at, std::move(use));
  return negated ? make(at, Not{std::move(result)}) : std::move(result);
}

ArgumentList ExpressionParser::arguments() {
  using Kind = Argument::Kind;
  expect_operator("(");
  ArgumentList list;
  const auto has = [&](Kind kind) {
    return std::any_of(list.begin(), list.end(),
                       [&](const Argument& argument) { return argument.kind == kind; });
  };
  while (!is_operator(")")) {
    if (!list.empty()) expect_operator(",");
    if (is_operator(")")) break;
    Argument argument;
    if (skip_operator("*")) {
      argument.kind = Kind::kList;
    } else if (skip_operator("**")) {
      argument.kind = Kind::kMapping;
    } else if (current().kind == Token::Kind::kName && look().kind == Token::Kind::kOperator &&
               look().text == "=") {
      argument.kind = Kind::kKeyword;
      argument.keyword = expect_any_name();
      next();
    } else if (has(Kind::kKeyword) || has(Kind::kList)) {
      fail("a positional argument after a keyword or '*' argument");
    }
    if (has(Kind::kMapping)) fail("an argument after '**'");
    argument.value = expression();
    list.push_back(std::move(argument));
  }
  expect_operator(")");
  return list;
}

}  // namespace temper::data::jinja
