#include "data/text/jinja/interpreter.h"

#include <algorithm>

#include "data/text/jinja/filters.h"
#include "data/text/jinja/globals.h"
#include "data/text/jinja/methods.h"
#include "data/text/jinja/operators.h"
#include "data/text/jinja/tests.h"
#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

constexpr uint64_t kRoundWork = 20;  // of a loop's round or a macro's call
constexpr int kMaxCallDepth =
    1000;  // of nested evaluations, which is what the machine's stack bounds

/// Variables of a block; those of the blocks around it are seen through `parent`.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;
  bool captured = false;  // a macro refers to it

  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope; scope = scope->parent.get()) {
      for (const auto& [known, value] : scope->variables) {
        if (known == name) return &value;
      }
    }
    return nullptr;
  }

  void set(const std::string& name, Value value) {
    for (auto& [known, old] : variables) {
      if (known == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }
};
using ScopePtr = std::shared_ptr<Scope>;

/// The variable `loop`.
class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  explicit Loop(std::vector<Value> items) : items_(std::move(items)) {}

  size_t size() const { return items_.size(); }
  const Value& enter(size_t index) { return items_[index_ = index]; }

  std::optional<Value> attribute(std::string_view name) const override {
    const auto index = int64_t(index_), count = int64_t(items_.size());
    if (name == "index") return index + 1;
    if (name == "index0") return index;
    if (name == "revindex") return count - index;
    if (name == "revindex0") return count - index - 1;
    if (name == "first") return index == 0;
    if (name == "last") return index + 1 == count;
    if (name == "length") return count;
    if (name == "depth") return 1;  // of recursive loops, which there are none of
    if (name == "depth0") return 0;
    if (name == "previtem")
      return index > 0 ? items_[index_ - 1] : Value::undefined("there is no previous item");
    if (name == "nextitem")
      return index + 1 < count ? items_[index_ + 1] : Value::undefined("there is no next item");
    if (name != "cycle" && name != "changed") return std::nullopt;
    auto self = std::const_pointer_cast<Loop>(shared_from_this());
    if (name == "changed")
      return std::make_shared<Function>("changed", [self](const Arguments& arguments) -> Value {
        return self->changed(arguments);
      });
    return std::make_shared<Function>("cycle", [self](const Arguments& arguments) -> Value {
      if (arguments.positional.empty()) throw Error("no items for cycling given");
      return arguments.positional[self->index_ % arguments.positional.size()];
    });
  }
  std::string repr(int) const override {
    return "<LoopContext " + std::to_string(index_ + 1) + "/" + std::to_string(items_.size()) + ">";
  }

 private:
  bool changed(const Arguments& arguments) {
    Value seen = Value::tuple(arguments.positional);
    if (last_seen_ && equal(*last_seen_, seen)) return false;
    last_seen_ = std::move(seen);
    return true;
  }

  const std::vector<Value> items_;
  size_t index_ = 0;
  std::optional<Value> last_seen_;
};

class Interpreter {
 public:
  explicit Interpreter(std::vector<std::pair<std::string, Value>> variables) {
    globals_->variables = make_globals(namespaces_);
    top_->parent = globals_;
    for (auto& [name, value] : variables) globals_->set(name, std::move(value));
  }

  /// Macros and namespaces may refer to what refers to them: untied here, for nothing outlives the
  /// rendering.
  ~Interpreter() {
    for (const ScopePtr& scope : captured_) scope->variables.clear();
    for (const auto& made : namespaces_) {
      if (const auto held = made.lock()) held->clear();
    }
  }
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  Rendering run(const Body& body) {
    const WorkLimit limit;
    try {
      execute(body, top_, root_);
    } catch (const RenderError&) {
      throw;
    } catch (const Error& error) {
      throw RenderError(error.what(), at_);
    }
    // Inside a macro the text at the span's place may be another one, with longer characters.
    for (auto& [begin, end] : spans_)
      end = begin + utf8_offset(std::string_view(root_).substr(begin), end);
    return {std::move(root_), std::move(spans_)};
  }

 private:
  enum class Flow { kOn, kBreak, kContinue };

  class MacroObject : public Object {
   public:
    MacroObject(Interpreter& interpreter, std::shared_ptr<const MacroDefinition> definition,
                ScopePtr closure)
        : interpreter_(interpreter),
          definition_(std::move(definition)),
          closure_(std::move(closure)) {}
    bool callable() const override { return true; }
    Value call(const Arguments& arguments) override {
      return interpreter_.call_macro(*definition_, closure_, arguments);
    }
    std::optional<Value> attribute(std::string_view name) const override {
      if (name == "name") return Value(definition_->name);
      return std::nullopt;
    }
    std::string repr(int) const override { return "<Macro " + repr_text(definition_->name) + ">"; }

   private:
    Interpreter& interpreter_;
    std::shared_ptr<const MacroDefinition> definition_;
    ScopePtr closure_;
  };

  class Depth {
   public:
    explicit Depth(Interpreter& interpreter) : depth_(interpreter.depth_) {
      if (depth_ >= kMaxCallDepth) throw Error("the template recurses too deeply");
      ++depth_;
    }
    ~Depth() { --depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    int& depth_;
  };

  static ScopePtr inside(const ScopePtr& parent) {
    return std::make_shared<Scope>(Scope{parent, {}});
  }

  static void append(std::string& out, std::string_view text) {
    spend_on_text(text.size());
    check_text_size(out.size() + text.size());
    out += text;
  }

  // Statements.

  Flow execute(const Body& body, const ScopePtr& scope, std::string& out) {
    const Depth depth(*this);
    for (const Stmt& statement : body) {
      at_ = statement.at;
      const Flow flow =
          std::visit([&](const auto& node) { return run(node, scope, out); }, statement.node);
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  std::string capture(const Body& body, const ScopePtr& scope) {
    std::string text;
    execute(body, inside(scope), text);
    return text;
  }

  Flow run(const Text& node, const ScopePtr&, std::string& out) {
    append(out, node.text);
    return Flow::kOn;
  }

  Flow run(const Output& node, const ScopePtr& scope, std::string& out) {
    append(out, to_text(evaluate(*node.value, scope)));
    return Flow::kOn;
  }

  Flow run(const If& node, const ScopePtr& scope, std::string& out) {
    for (const auto& [condition, body] : node.branches) {
      if (truthy(evaluate(*condition, scope))) return execute(body, scope, out);
    }
    return execute(node.otherwise, scope, out);
  }

  Flow run(const For& node, const ScopePtr& scope, std::string& out) {
    std::vector<Value> items = iterate(evaluate(*node.iterable, scope));
    if (node.filter) {
      std::erase_if(items, [&](const Value& item) {
        spend(kRoundWork);
        const ScopePtr tested = inside(scope);
        assign(node.target, item, tested);
        return !truthy(evaluate(*node.filter, tested));
      });
    }
    const auto loop = std::make_shared<Loop>(std::move(items));
    bool completed = false;  // a round that ended in break or continue does not count, as in Jinja
    for (size_t i = 0; i < loop->size(); ++i) {
      spend(kRoundWork);
      const ScopePtr round = inside(scope);
      round->set("loop", loop);
      assign(node.target, loop->enter(i), round);
      const Flow flow = execute(node.body, round, out);
      completed |= flow == Flow::kOn;
      if (flow == Flow::kBreak) break;
    }
    return completed ? Flow::kOn : execute(node.otherwise, inside(scope), out);
  }

  Flow run(const Set& node, const ScopePtr& scope, std::string&) {
    assign(node.target, evaluate(*node.value, scope), scope);
    return Flow::kOn;
  }

  Flow run(const SetBlock& node, const ScopePtr& scope, std::string&) {
    assign(node.target, filtered(node.filters, capture(node.body, scope), scope), scope);
    return Flow::kOn;
  }

  Flow run(const FilterBlock& node, const ScopePtr& scope, std::string& out) {
    const Value text = filtered(node.filters, capture(node.body, scope), scope);
    if (!text.is_string())
      throw Error("a filter block must make text, not '" + type_name(text) + "'");
    append(out, text.text());
    return Flow::kOn;
  }

  Flow run(const Macro& node, const ScopePtr& scope, std::string&) {
    scope->set(node.definition->name, make_macro(node.definition, scope));
    return Flow::kOn;
  }

  Flow run(const CallBlock& node, const ScopePtr& scope, std::string& out) {
    const auto& call = std::get<Call>(node.call->node);
    const Value callee = evaluate(*call.callee, scope);
    Arguments arguments = evaluate_arguments(call.arguments, scope);
    arguments.keyword.emplace_back("caller", make_macro(node.caller, scope));
    append(out, to_text(invoke(callee, arguments)));
    return Flow::kOn;
  }

  /// Its place is that of the text that has left the template so far: inside a macro, where the
  /// macro's own text will begin.
  Flow run(const Generation& node, const ScopePtr& scope, std::string& out) {
    const std::string text = capture(node.body, scope);
    spans_.emplace_back(root_.size(), utf8_count(text));
    append(out, text);
    return Flow::kOn;
  }

  Flow run(const Break&, const ScopePtr&, std::string&) { return Flow::kBreak; }
  Flow run(const Continue&, const ScopePtr&, std::string&) { return Flow::kContinue; }

  void assign(const Target& target, const Value& value, const ScopePtr& scope) {
    if (target.is_tuple) {
      const std::vector<Value> values = iterate(value);
      if (values.size() != target.parts.size()) {
        throw Error("cannot unpack " + std::to_string(values.size()) + " values into " +
                    std::to_string(target.parts.size()) + " names");
      }
      for (size_t i = 0; i < values.size(); ++i) assign(target.parts[i], values[i], scope);
    } else if (target.attribute.empty()) {
      scope->set(target.name, value);
    } else {
      const Value* held = scope->find(target.name);
      const auto made = held ? std::dynamic_pointer_cast<Namespace>(held->object()) : nullptr;
      if (!made)
        throw Error("cannot assign attribute '" + target.attribute + "' of '" + target.name +
                    "', which is no namespace");
      made->set(target.attribute, value);
    }
  }

  // Macros and calls.

  Value make_macro(const std::shared_ptr<const MacroDefinition>& definition,
                   const ScopePtr& scope) {
    for (ScopePtr held = scope; held && !held->captured; held = held->parent) {
      held->captured = true;
      captured_.push_back(held);
    }
    return std::make_shared<MacroObject>(*this, definition, scope);
  }

  Value call_macro(const MacroDefinition& macro, const ScopePtr& closure,
                   const Arguments& arguments) {
    spend(kRoundWork);
    const ScopePtr scope = inside(closure);
    const auto& parameters = macro.parameters;
    const size_t given = std::min(arguments.positional.size(), parameters.size());
    for (size_t i = 0; i < given; ++i) scope->set(parameters[i].name, arguments.positional[i]);
    if (macro.takes_varargs) {
      scope->set("varargs", Value::tuple({arguments.positional.begin() + std::ptrdiff_t(given),
                                          arguments.positional.end()}));
    } else if (arguments.positional.size() > given) {
      throw Error("macro '" + macro.name + "' takes not more than " +
                  std::to_string(parameters.size()) + " argument(s)");
    }
    bind_keywords(macro, given, arguments, *scope);
    for (size_t i = given; i < parameters.size(); ++i) {
      const std::string& name = parameters[i].name;
      if (std::any_of(arguments.keyword.begin(), arguments.keyword.end(),
                      [&](const auto& keyword) { return keyword.first == name; }))
        continue;
      scope->set(name, parameters[i].fallback
                           ? evaluate(*parameters[i].fallback, scope)
                           : Value::undefined("parameter '" + name + "' was not provided"));
    }
    std::string text;
    execute(macro.body, scope, text);
    return text;
  }

  static void bind_keywords(const MacroDefinition& macro, size_t given, const Arguments& arguments,
                            Scope& scope) {
    auto rest = std::make_shared<Dict>();
    if (macro.takes_caller) scope.set("caller", Value::undefined("no caller defined"));
    for (const auto& [name, value] : arguments.keyword) {
      const auto& parameters = macro.parameters;
      const auto found =
          std::find_if(parameters.begin(), parameters.end(),
                       [&](const auto& parameter) { return parameter.name == name; });
      const bool is_given = size_t(found - parameters.begin()) < given;
      if (found != parameters.end() && is_given && !macro.takes_kwargs)
        throw Error("macro '" + macro.name + "' got multiple values for argument '" + name + "'");
      if (found != parameters.end() && !is_given) {
        scope.set(name, value);
      } else if (name == "caller" && macro.takes_caller) {
        scope.set(name, value);
      } else if (macro.takes_kwargs) {
        rest->set(name, value);
      } else {
        throw Error("macro '" + macro.name + "' takes no keyword argument '" + name + "'");
      }
    }
    if (macro.takes_kwargs) scope.set("kwargs", rest);
  }

  Arguments evaluate_arguments(const ArgumentList& list, const ScopePtr& scope) {
    Arguments arguments;
    for (const Argument& argument : list) {
      Value value = evaluate(*argument.value, scope);
      switch (argument.kind) {
        case Argument::Kind::kPositional:
          arguments.positional.push_back(std::move(value));
          break;
        case Argument::Kind::kKeyword:
          arguments.keyword.emplace_back(argument.keyword, std::move(value));
          break;
        case Argument::Kind::kList:
          for (Value& item : iterate(value)) arguments.positional.push_back(std::move(item));
          break;
        case Argument::Kind::kMapping:
          if (!value.is_dict())
            throw Error("the argument after ** must be a mapping, not '" + type_name(value) + "'");
          for (const auto& [key, item] : value.dict().entries)
            arguments.keyword.emplace_back(to_text(key), item);
      }
    }
    return arguments;
  }

  static Value invoke(const Value& callee, const Arguments& arguments) {
    if (callee.is_undefined()) {
      const auto& what = std::get<Undefined>(callee.storage()).what;
      throw Error(what ? *what : "an undefined value is called");
    }
    const auto object = callee.object();
    if (!object) throw Error("'" + type_name(callee) + "' object is not callable");
    return object->call(arguments);
  }

  Value filtered(const std::vector<FilterUse>& filters, Value value, const ScopePtr& scope) {
    for (const FilterUse& use : filters) value = apply(use, value, scope);
    return value;
  }

  Value apply(const FilterUse& use, const Value& input, const ScopePtr& scope) {
    const Filter* filter = find_filter(use.name);
    if (!filter) throw Error("unknown filter '" + use.name + "'");
    return filter->apply(input, evaluate_arguments(use.arguments, scope));
  }

  // Expressions.

  Value evaluate(const Expr& expr, const ScopePtr& scope) {
    const Depth depth(*this);
    spend(1);
    const Place outer = std::exchange(at_, expr.at);
    Value value = std::visit([&](const auto& node) { return value_of(node, scope); }, expr.node);
    at_ = outer;  // where an error leaves it, the template failed
    return value;
  }

  Value value_of(const Literal& node, const ScopePtr&) { return node.value; }

  Value value_of(const Name& node, const ScopePtr& scope) {
    const Value* found = scope->find(node.name);
    return found ? *found : Value::undefined("'" + node.name + "' is undefined");
  }

  std::vector<Value> evaluate_all(const std::vector<ExprPtr>& expressions, const ScopePtr& scope) {
    std::vector<Value> values;
    values.reserve(expressions.size());
    for (const ExprPtr& expression : expressions) values.push_back(evaluate(*expression, scope));
    return values;
  }

  Value value_of(const ListDisplay& node, const ScopePtr& scope) {
    return Value::list(evaluate_all(node.items, scope));
  }
  Value value_of(const TupleDisplay& node, const ScopePtr& scope) {
    return Value::tuple(evaluate_all(node.items, scope));
  }

  Value value_of(const DictDisplay& node, const ScopePtr& scope) {
    auto dict = std::make_shared<Dict>();
    for (const auto& [key, value] : node.entries) {
      Value name = evaluate(*key, scope);
      dict->set(std::move(name), evaluate(*value, scope));
    }
    return dict;
  }

  Value value_of(const Attribute& node, const ScopePtr& scope) {
    return get_attribute(evaluate(*node.object, scope), node.name);
  }

  Value value_of(const Subscript& node, const ScopePtr& scope) {
    const Value object = evaluate(*node.object, scope);
    return get_item(object, evaluate(*node.index, scope));
  }

  Value value_of(const Slice& node, const ScopePtr& scope) {
    const Value object = evaluate(*node.object, scope);
    const auto part = [&](const ExprPtr& expression) {
      return expression ? evaluate(*expression, scope) : Value(None{});
    };
    const Value start = part(node.start), stop = part(node.stop), step = part(node.step);
    return slice(object, start, stop, step);
  }

  Value value_of(const Call& node, const ScopePtr& scope) {
    const Value callee = evaluate(*node.callee, scope);
    return invoke(callee, evaluate_arguments(node.arguments, scope));
  }

  Value value_of(const FilterUse& node, const ScopePtr& scope) {
    return apply(node, evaluate(*node.input, scope), scope);
  }

  Value value_of(const TestUse& node, const ScopePtr& scope) {
    const Test* test = find_test(node.name);
    if (!test) throw Error("unknown test '" + node.name + "'");
    const Value input = evaluate(*node.input, scope);
    return test->holds(input, evaluate_arguments(node.arguments, scope));
  }

  Value value_of(const Not& node, const ScopePtr& scope) {
    return !truthy(evaluate(*node.operand, scope));
  }

  Value value_of(const Sign& node, const ScopePtr& scope) {
    const Value operand = evaluate(*node.operand, scope);
    return node.negative ? negate(operand) : arithmetic("+", 0, operand);
  }

  Value value_of(const Arithmetic& node, const ScopePtr& scope) {
    const Value left = evaluate(*node.left, scope);
    return arithmetic(node.op, left, evaluate(*node.right, scope));
  }

  Value value_of(const Logical& node, const ScopePtr& scope) {
    Value left = evaluate(*node.left, scope);
    return truthy(left) == node.is_and ? evaluate(*node.right, scope) : left;
  }

  Value value_of(const Comparison& node, const ScopePtr& scope) {
    Value left = evaluate(*node.first, scope);
    for (const auto& [op, expression] : node.rest) {
      Value right = evaluate(*expression, scope);
      if (!holds(op, left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  static bool holds(const std::string& op, const Value& left, const Value& right) {
    if (op == "==") return equal(left, right);
    if (op == "!=") return !equal(left, right);
    if (op == "in") return contains(right, left);
    if (op == "not in") return !contains(right, left);
    const int order = compare(left, right);
    if (op == "<") return order < 0;
    if (op == "<=") return order <= 0;
    return op == ">" ? order > 0 : order >= 0;
  }

  Value value_of(const Concatenation& node, const ScopePtr& scope) {
    std::string text;
    for (const ExprPtr& part : node.parts) append(text, to_text(evaluate(*part, scope)));
    return text;
  }

  Value value_of(const Conditional& node, const ScopePtr& scope) {
    if (truthy(evaluate(*node.condition, scope))) return evaluate(*node.then, scope);
    if (node.otherwise) return evaluate(*node.otherwise, scope);
    return Value::undefined("the inline if expression evaluated to false and has no else");
  }

  const ScopePtr globals_ = std::make_shared<Scope>();
  const ScopePtr top_ = std::make_shared<Scope>();
  std::vector<ScopePtr> captured_;
  std::vector<std::weak_ptr<Namespace>> namespaces_;
  std::string root_;
  std::vector<std::pair<size_t, size_t>> spans_;  // begin in bytes, length in characters
  Place at_;
  int depth_ = 0;
};

}  // namespace

Rendering render(const Template& parsed, std::vector<std::pair<std::string, Value>> variables) {
  return Interpreter(std::move(variables)).run(parsed.body);
}

}  // namespace temper::data::jinja
