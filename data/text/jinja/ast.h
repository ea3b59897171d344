#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "data/text/jinja/value.h"

/// The parse tree: expressions and statements, one struct a form.
namespace temper::data::jinja {

/// In the source, from 1.
struct Place {
  int line = 1, column = 1;
};

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<Stmt>;

/// One argument as written: positional, `keyword=`, `*list` or `**mapping`.
struct Argument {
  enum class Kind { kPositional, kKeyword, kList, kMapping };
  Kind kind = Kind::kPositional;
  std::string keyword;
  ExprPtr value;
};
using ArgumentList = std::vector<Argument>;

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct ListDisplay {
  std::vector<ExprPtr> items;
};
struct TupleDisplay {
  std::vector<ExprPtr> items;
};
struct DictDisplay {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};
struct Attribute {
  ExprPtr object;
  std::string name;
};
struct Subscript {
  ExprPtr object, index;
};
struct Slice {
  ExprPtr object, start, stop, step;
};  // null: left out
struct Call {
  ExprPtr callee;
  ArgumentList arguments;
};
struct FilterUse {
  ExprPtr input;
  std::string name;
  ArgumentList arguments;
};  // null input: the text of a block
struct TestUse {
  ExprPtr input;
  std::string name;
  ArgumentList arguments;
};
struct Not {
  ExprPtr operand;
};
struct Sign {
  bool negative;
  ExprPtr operand;
};
struct Arithmetic {
  std::string op;
  ExprPtr left, right;
};
struct Logical {
  bool is_and;
  ExprPtr left, right;
};
struct Comparison {
  ExprPtr first;
  std::vector<std::pair<std::string, ExprPtr>> rest;
};
struct Concatenation {
  std::vector<ExprPtr> parts;
};
struct Conditional {
  ExprPtr condition, then, otherwise;
};  // null otherwise: undefined

struct Expr {
  Place at;
  std::variant<Literal, Name, ListDisplay, TupleDisplay, DictDisplay, Attribute, Subscript, Slice,
               Call, FilterUse, TestUse, Not, Sign, Arithmetic, Logical, Comparison, Concatenation,
               Conditional>
      node;
};

/// What an assignment or a for loop binds: a name, an attribute of a namespace, or several targets.
struct Target {
  std::string name;
  std::string attribute;      // not empty: `name.attribute`
  std::vector<Target> parts;  // of a tuple
  bool is_tuple = false;
};

/// A macro, or the body of a call block.
struct MacroDefinition {
  struct Parameter {
    std::string name;
    ExprPtr fallback;  // null: undefined
  };
  std::string name;
  std::vector<Parameter> parameters;
  std::vector<Stmt> body;
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;  // by use of those names
};

struct Text {
  std::string text;
};
struct Output {
  ExprPtr value;
};
struct If {
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};
struct For {
  Target target;
  ExprPtr iterable, filter;
  Body body, otherwise;
};  // null filter: none
struct Set {
  Target target;
  ExprPtr value;
};
struct SetBlock {
  Target target;
  std::vector<FilterUse> filters;
  Body body;
};
struct Macro {
  std::shared_ptr<const MacroDefinition> definition;
};
struct CallBlock {
  ExprPtr call;
  std::shared_ptr<const MacroDefinition> caller;
};
struct FilterBlock {
  std::vector<FilterUse> filters;
  Body body;
};
struct Generation {
  Body body;
};
struct Break {};
struct Continue {};

struct Stmt {
  Place at;
  std::variant<Text, Output, If, For, Set, SetBlock, Macro, CallBlock, FilterBlock, Generation,
               Break, Continue>
      node;
};

struct Template {
  Body body;
  bool marks_generation = false;
};

}  // namespace temper::data::jinja
