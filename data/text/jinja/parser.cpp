#include "data/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "data/text/jinja/expression_parser.h"

namespace temper::data::jinja {
namespace {

/// Statements; the expressions inside them are ExpressionParser's.
class Parser : private ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(tokenize(source)) {}

  Template run() {
    Template result;
    result.body = body({});
    if (current().kind != Token::Kind::kEnd) fail("unexpected end of the template");
    result.marks_generation = marks_generation_;
    return result;
  }

 private:
  /// Statements up to a block whose name is in `ends`, which stays the next token; up to the end
  /// when `ends` is empty.
  Body body(std::initializer_list<std::string_view> ends) {
    const Nesting nesting(*this);
    Body statements;
    for (;;) {
      const Token& token = current();
      switch (token.kind) {
        case Token::Kind::kText:
          statements.push_back({place_of(token), Text{token.text}});
          next();
          break;
        case Token::Kind::kOutputBegin: {
          next();
          ExprPtr value = tuple_or_expression();
          statements.push_back({place_of(token), Output{std::move(value)}});
          expect_kind(Token::Kind::kOutputEnd, "'}}'");
          break;
        }
        case Token::Kind::kBlockBegin:
          next();
          if (std::find(ends.begin(), ends.end(), current().text) != ends.end()) return statements;
          statements.push_back(statement());
          break;
        default:
          if (ends.size() > 0)
            fail("the template ends before '" + std::string(*(ends.end() - 1)) + "'");
          return statements;
      }
    }
  }

  Stmt statement() {
    const Token token = current();
    if (token.kind != Token::Kind::kName) fail("a block needs a name");
    next();
    Stmt result{place_of(token), Break{}};
    if (token.text == "if")
      result.node = if_statement();
    else if (token.text == "for")
      result.node = for_statement();
    else if (token.text == "set")
      return set_statement(place_of(token));
    else if (token.text == "macro")
      result.node = macro();
    else if (token.text == "call")
      result.node = call_block();
    else if (token.text == "filter")
      result.node = filter_block();
    else if (token.text == "generation")
      result.node = generation();
    else if (token.text == "break")
      result.node = loop_control<Break>(token);
    else if (token.text == "continue")
      result.node = loop_control<Continue>(token);
    else
      unknown_block(token);
    return result;
  }

  [[noreturn]] void unknown_block(const Token& token) {
    static constexpr std::string_view kRefused[] = {
        "include", "import", "from", "extends", "block", "with", "autoescape", "do", "trans"};
    const bool known =
        std::find(std::begin(kRefused), std::end(kRefused), token.text) != std::end(kRefused);
    fail_at(token, known ? "'" + token.text + "' is not supported in chat templates"
                         : "unknown block '" + token.text + "'");
  }

  void end_block() { expect_kind(Token::Kind::kBlockEnd, "'%}'"); }

  /// The named end of a body, with its '%}'.
  void close_body() {
    next();
    end_block();
  }

  If if_statement() {
    ++conditional_depth_;
    If result;
    for (;;) {
      ExprPtr condition = tuple_or_expression(/*with_conditional=*/false);
      end_block();
      Body then = body({"elif", "else", "endif"});
      result.branches.emplace_back(std::move(condition), std::move(then));
      if (!skip_name("elif")) break;
    }
    if (skip_name("else")) {
      end_block();
      result.otherwise = body({"endif"});
    }
    close_body();
    --conditional_depth_;
    return result;
  }

  For for_statement() {
    For result;
    result.target = target("in");
    expect_name("in");
    result.iterable = tuple_or_expression(/*with_conditional=*/false);
    if (skip_name("if")) result.filter = expression();
    if (current().text == "recursive") fail("recursive loops are not supported in chat templates");
    end_block();
    ++loop_depth_;
    result.body = body({"else", "endfor"});
    --loop_depth_;
    if (skip_name("else")) {
      end_block();
      result.otherwise = body({"endfor"});
    }
    close_body();
    return result;
  }

  Target target(std::string_view end) {
    std::vector<Target> parts;
    bool is_tuple = false;
    do {
      if (current().text == end && !parts.empty()) break;
      parts.push_back(single_target());
      if (!is_operator(",")) break;
      is_tuple = true;
    } while (skip_operator(","));
    if (!is_tuple) return std::move(parts[0]);
    return {.name = {}, .attribute = {}, .parts = std::move(parts), .is_tuple = true};
  }

  Target single_target() {
    if (skip_operator("(")) {
      Target inner = target(")");
      expect_operator(")");
      return inner;
    }
    Target result{.name = assignable_name(), .attribute = {}, .parts = {}, .is_tuple = false};
    if (skip_operator(".")) result.attribute = expect_any_name();
    return result;
  }

  std::string assignable_name() {
    static constexpr std::string_view kReserved[] = {"true",  "True", "false",
                                                     "False", "none", "None"};
    const Token token = current();
    std::string name = expect_any_name();
    if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
      fail_at(token, "cannot assign to '" + name + "'");
    }
    return name;
  }

  Stmt set_statement(Place at) {
    Target assigned = target("=");
    if (skip_operator("=")) {
      ExprPtr value = tuple_or_expression();
      end_block();
      return {at, Set{std::move(assigned), std::move(value)}};
    }
    std::vector<FilterUse> filters;
    while (skip_operator("|")) filters.push_back(filter(nullptr));
    end_block();
    Body inside = body({"endset"});
    close_body();
    return {at, SetBlock{std::move(assigned), std::move(filters), std::move(inside)}};
  }

  Macro macro() {
    auto definition = std::make_shared<MacroDefinition>();
    definition->name = expect_any_name();
    parameters(*definition);
    end_block();
    macro_body(*definition, "endmacro");
    return {std::move(definition)};
  }

  CallBlock call_block() {
    auto caller = std::make_shared<MacroDefinition>();
    caller->name = "caller";
    if (is_operator("(")) parameters(*caller);
    const Token at = current();
    ExprPtr call = expression();
    if (!std::holds_alternative<Call>(call->node)) fail_at(at, "a call block needs a call");
    end_block();
    macro_body(*caller, "endcall");
    return {std::move(call), std::move(caller)};
  }

  void parameters(MacroDefinition& definition) {
    expect_operator("(");
    while (!is_operator(")")) {
      if (!definition.parameters.empty()) expect_operator(",");
      if (is_operator(")")) break;
      MacroDefinition::Parameter parameter{assignable_name(), nullptr};
      if (skip_operator("="))
        parameter.fallback = expression();
      else if (!definition.parameters.empty() && definition.parameters.back().fallback)
        fail("a parameter without a default after one with a default");
      definition.parameters.push_back(std::move(parameter));
    }
    expect_operator(")");
  }

  void macro_body(MacroDefinition& definition, std::string_view end) {
    MacroDefinition* outer = std::exchange(macro_, &definition);
    const int outer_loops = std::exchange(loop_depth_, 0);
    definition.body = body({end});
    loop_depth_ = outer_loops;
    macro_ = outer;
    if (outer) {  // its body uses what the inner one uses
      outer->takes_varargs |= definition.takes_varargs;
      outer->takes_kwargs |= definition.takes_kwargs;
      outer->takes_caller |= definition.takes_caller;
    }
    close_body();
  }

  FilterBlock filter_block() {
    std::vector<FilterUse> filters;
    filters.push_back(filter(nullptr));
    while (skip_operator("|")) filters.push_back(filter(nullptr));
    end_block();
    Body inside = body({"endfilter"});
    close_body();
    return {std::move(filters), std::move(inside)};
  }

  Generation generation() {
    marks_generation_ = true;
    end_block();
    // The block's body runs as a macro of its own: a loop around it cannot be left from inside.
    const int outer_loops = std::exchange(loop_depth_, 0);
    Body inside = body({"endgeneration"});
    loop_depth_ = outer_loops;
    close_body();
    return {std::move(inside)};
  }

  template <typename Control>
  Control loop_control(const Token& token) {
    if (loop_depth_ == 0) fail_at(token, "'" + token.text + "' outside a loop");
    end_block();
    return {};
  }

  int loop_depth_ = 0;
  bool marks_generation_ = false;
};

}  // namespace

Template parse(std::string_view source) { return Parser(source).run(); }

}  // namespace temper::data::jinja
