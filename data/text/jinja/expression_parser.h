#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/text/jinja/ast.h"
#include "data/text/jinja/lexer.h"

namespace temper::data::jinja {

/// The expression half of the parser, over a list of tokens: one function a level of Jinja's
/// precedence, from the loosest (x if y else z) to the tightest. Throws SyntaxError.
class ExpressionParser {
 protected:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  ExprPtr expression() { return conditional(); }
  /// One expression, or several with commas, which make a tuple.
  ExprPtr tuple_or_expression(bool with_conditional = true, bool parenthesised = false);
  /// A filter's name and arguments, the bar already read.
  FilterUse filter(ExprPtr input);

  const Token& current() const { return tokens_[position_]; }
  const Token& look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  void next() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }
  static Place place_of(const Token& token) { return {token.line, token.column}; }
  Place here() const { return place_of(current()); }
  bool is_operator(std::string_view text) const {
    return current().kind == Token::Kind::kOperator && current().text == text;
  }
  bool is_name(std::string_view text) const {
    return current().kind == Token::Kind::kName && current().text == text;
  }
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  void expect_kind(Token::Kind kind, const std::string& what);
  std::string expect_any_name();
  [[noreturn]] void fail(const std::string& what) const { fail_at(current(), what); }
  [[noreturn]] void fail_at(const Token& token, const std::string& what) const {
    throw SyntaxError(what, token.line, token.column);
  }

  /// Bounds the recursion of the parser, and so of everything that walks the tree.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

  MacroDefinition* macro_ = nullptr;  // the innermost one being read
  int conditional_depth_ = 0;  // inside a branch, an unknown filter is an error only when it runs

 private:
  ExprPtr conditional();
  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters = true);
  ExprPtr primary();
  ExprPtr postfix(ExprPtr operand);
  ExprPtr filters_and_tests(ExprPtr operand);
  ExprPtr subscript(ExprPtr operand);
  ExprPtr test(ExprPtr operand);
  ExprPtr name_or_constant();
  ExprPtr number();
  ExprPtr list();
  ExprPtr dict();
  bool at_tuple_end() const;
  /// Bounds chains like a + b + c, whose tree is as deep as they are long.
  void bound_chain(int& length) const;
  ArgumentList arguments();

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;
};

}  // namespace temper::data::jinja
