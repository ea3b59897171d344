// Filters over lists and dicts.
#include <algorithm>

#include "data/text/jinja/filters.h"
#include "data/text/jinja/operators.h"
#include "data/text/jinja/tests.h"
#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

/// What case-insensitive sorting and comparing see of a value.
Value folded(const Value& value, bool case_sensitive) {
  return !case_sensitive && value.is_string() ? Value(lower(value.text())) : value;
}

Value default_filter(const Value& input, const Arguments& arguments) {
  const auto bound = bind("default", arguments, {"default_value", "boolean"});
  const bool also_false = bound[1] && truthy(*bound[1]);
  if (input.is_undefined() || (also_false && !truthy(input))) return bound[0].value_or("");
  return input;
}

Value length_filter(const Value& input, const Arguments& arguments) {
  bind("length", arguments, {});
  return length(input);
}

Value list_filter(const Value& input, const Arguments& arguments) {
  bind("list", arguments, {});
  return Value::list(iterate(input));
}

Value first(const Value& input, const Arguments& arguments) {
  bind("first", arguments, {});
  if (const Sequence* sequence = input.sequence();
      sequence && sequence->kind == Sequence::Kind::kGenerator) {
    return sequence->taken < sequence->items.size()
               ? sequence->items[sequence->taken++]
               : Value::undefined("no first item, sequence was empty");
  }
  const std::vector<Value> items = iterate(input);
  return items.empty() ? Value::undefined("no first item, sequence was empty") : items.front();
}

Value last(const Value& input, const Arguments& arguments) {
  bind("last", arguments, {});
  const std::vector<Value> items = iterate(input);
  return items.empty() ? Value::undefined("no last item, sequence was empty") : items.back();
}

Value join(const Value& input, const Arguments& arguments) {
  const auto bound = bind("join", arguments, {"d", "attribute"});
  const std::string separator = bound[0] ? to_text(*bound[0]) : "";
  const bool by_attribute = bound[1] && !bound[1]->is_none();
  std::string out;
  bool begun = false;
  for (const Value& item : iterate(input)) {
    if (begun) out += separator;
    begun = true;
    out += to_text(by_attribute ? get_path(item, *bound[1]) : item);
    check_text_size(out.size());
  }
  return out;
}

Value items_filter(const Value& input, const Arguments& arguments) {
  bind("items", arguments, {});
  if (input.is_undefined()) return Value::generator({});
  if (!input.is_dict()) throw Error("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict().entries) pairs.push_back(Value::tuple({key, value}));
  return Value::generator(std::move(pairs));
}

Value dictsort(const Value& input, const Arguments& arguments) {
  const auto bound = bind("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  if (!input.is_dict()) throw Error("dictsort needs a mapping, not '" + type_name(input) + "'");
  const bool case_sensitive = bound[0] && truthy(*bound[0]);
  const std::string by = bound[1] ? to_text(*bound[1]) : "key";
  if (by != "key" && by != "value") throw Error("You can only sort by either \"key\" or \"value\"");
  const bool reverse = bound[2] && truthy(*bound[2]);
  auto entries = input.dict().entries;
  const auto key = [&](const auto& entry) {
    return folded(by == "key" ? entry.first : entry.second, case_sensitive);
  };
  std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
    return reverse ? compare(key(b), key(a)) < 0 : compare(key(a), key(b)) < 0;
  });
  std::vector<Value> pairs;
  for (const auto& [name, value] : entries) pairs.push_back(Value::tuple({name, value}));
  return Value::list(std::move(pairs));
}

/// A list of what `attribute` chooses (it may name several, separated by commas): the items of
/// lists are only ordered where they differ, so that missing ones are no error.
Value sort_key(const Value& item, const std::optional<Value>& attribute, bool case_sensitive) {
  if (!attribute || attribute->is_none()) return Value::list({folded(item, case_sensitive)});
  if (!attribute->is_string())
    return Value::list({folded(get_path(item, *attribute), case_sensitive)});
  std::vector<Value> keys;
  std::string_view rest = attribute->text();
  for (;;) {
    const std::string_view part = rest.substr(0, rest.find(','));
    keys.push_back(folded(get_path(item, part), case_sensitive));
    if (part.size() == rest.size()) return Value::list(std::move(keys));
    rest.remove_prefix(part.size() + 1);
  }
}

Value sort(const Value& input, const Arguments& arguments) {
  const auto bound = bind("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool reverse = bound[0] && truthy(*bound[0]);
  const bool case_sensitive = bound[1] && truthy(*bound[1]);
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : iterate(input)) {
    Value key = sort_key(item, bound[2], case_sensitive);
    keyed.emplace_back(std::move(key), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
  });
  std::vector<Value> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return Value::list(std::move(items));
}

Value unique(const Value& input, const Arguments& arguments) {
  const auto bound = bind("unique", arguments, {"case_sensitive", "attribute"});
  const bool case_sensitive = bound[0] && truthy(*bound[0]);
  std::vector<Value> seen, items;
  for (const Value& item : iterate(input)) {
    const Value key = bound[1] && !bound[1]->is_none()
                          ? folded(get_path(item, *bound[1]), case_sensitive)
                          : folded(item, case_sensitive);
    require_hashable(key);
    if (std::any_of(seen.begin(), seen.end(),
                    [&](const Value& other) { return equal(other, key); }))
      continue;
    seen.push_back(key);
    items.push_back(item);
  }
  return Value::generator(std::move(items));
}

Value extreme(const Value& input, const Arguments& arguments, bool largest) {
  const auto bound = bind(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const bool case_sensitive = bound[0] && truthy(*bound[0]);
  std::optional<std::pair<Value, Value>> best;
  for (const Value& item : iterate(input)) {
    const Value key = bound[1] && !bound[1]->is_none()
                          ? folded(get_path(item, *bound[1]), case_sensitive)
                          : folded(item, case_sensitive);
    if (!best || (largest ? compare(key, best->first) > 0 : compare(key, best->first) < 0))
      best = {key, item};
  }
  return best ? best->second : Value::undefined("no aggregated item, sequence was empty");
}

Value max_filter(const Value& input, const Arguments& arguments) {
  return extreme(input, arguments, true);
}
Value min_filter(const Value& input, const Arguments& arguments) {
  return extreme(input, arguments, false);
}

Value sum(const Value& input, const Arguments& arguments) {
  const auto bound = bind("sum", arguments, {"attribute", "start"});
  Value total = bound[1].value_or(0);
  for (const Value& item : iterate(input)) {
    total =
        arithmetic("+", total, bound[0] && !bound[0]->is_none() ? get_path(item, *bound[0]) : item);
  }
  return total;
}

Value reverse_filter(const Value& input, const Arguments& arguments) {
  bind("reverse", arguments, {});
  std::vector<Value> items = iterate(input);
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return Value::generator(std::move(items));
  std::string text;
  for (const Value& item : items) text += item.text();
  return Value(std::move(text), input.safe());
}

Value map_filter(const Value& input, const Arguments& arguments) {
  if (!truthy(input)) return Value::generator({});  // none, 0, ...: nothing, as in Jinja
  const Value* attribute = nullptr;
  const Value* fallback = nullptr;
  for (const auto& [name, value] : arguments.keyword) {
    if (name == "attribute") attribute = &value;
    if (name == "default") fallback = &value;
  }
  std::vector<Value> out;
  if (arguments.positional.empty() && attribute) {
    if (arguments.keyword.size() > (fallback ? 2u : 1u))
      throw Error("map: unexpected keyword argument");
    for (const Value& item : iterate(input)) out.push_back(get_path(item, *attribute, fallback));
    return Value::generator(std::move(out));
  }
  if (arguments.positional.empty()) throw Error("map requires a filter argument");
  const Filter* filter = find_filter(to_text(arguments.positional[0]));
  if (!filter) throw Error("unknown filter '" + to_text(arguments.positional[0]) + "'");
  const Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()},
                       arguments.keyword};
  for (const Value& item : iterate(input)) out.push_back(filter->apply(item, rest));
  return Value::generator(std::move(out));
}

/// select, reject and, with an attribute as first argument, selectattr and rejectattr.
Value choose(const Value& input, const Arguments& arguments, bool keep, bool by_attribute) {
  if (!truthy(input)) return Value::generator({});
  const size_t skipped = by_attribute ? 1 : 0;
  if (arguments.positional.size() < skipped) throw Error("missing parameter for attribute name");
  const Test* test = nullptr;
  Arguments rest;
  rest.keyword = arguments.keyword;
  if (arguments.positional.size() > skipped) {
    const std::string name = to_text(arguments.positional[skipped]);
    test = find_test(name);
    if (!test) throw Error("unknown test '" + name + "'");
    rest.positional.assign(arguments.positional.begin() + std::ptrdiff_t(skipped) + 1,
                           arguments.positional.end());
  }
  std::vector<Value> out;
  for (const Value& item : iterate(input)) {
    const Value tested = by_attribute ? get_path(item, arguments.positional[0]) : item;
    if ((test ? test->holds(tested, rest) : truthy(tested)) == keep) out.push_back(item);
  }
  return Value::generator(std::move(out));
}

Value select(const Value& input, const Arguments& arguments) {
  return choose(input, arguments, true, false);
}
Value reject(const Value& input, const Arguments& arguments) {
  return choose(input, arguments, false, false);
}
Value selectattr(const Value& input, const Arguments& arguments) {
  return choose(input, arguments, true, true);
}
Value rejectattr(const Value& input, const Arguments& arguments) {
  return choose(input, arguments, false, true);
}

Value batch(const Value& input, const Arguments& arguments) {
  const auto bound = bind("batch", arguments, {"linecount", "fill_with"}, 1);
  const size_t size = size_t(std::max<int64_t>(1, bound[0]->as_integer()));
  const std::vector<Value> items = iterate(input);
  std::vector<Value> rows;
  for (size_t begin = 0; begin < items.size(); begin += std::min(size, items.size() - begin)) {
    std::vector<Value> row(
        items.begin() + std::ptrdiff_t(begin),
        items.begin() + std::ptrdiff_t(begin + std::min(size, items.size() - begin)));
    if (bound[1] && !bound[1]->is_none()) {
      if (size > kMaxItems) throw Error("batch: linecount is too large");
      row.resize(size, *bound[1]);
    }
    rows.push_back(Value::list(std::move(row)));
  }
  return Value::generator(std::move(rows));
}

Value attr(const Value& input, const Arguments& arguments) {
  const auto bound = bind("attr", arguments, {"name"}, 1);
  if (input.is_dict()) return Value::undefined("no attribute '" + to_text(*bound[0]) + "'");
  return get_attribute(input, to_text(*bound[0]));
}

constexpr Filter kFilters[] = {
    {"attr", attr},
    {"batch", batch},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort},
    {"first", first},
    {"items", items_filter},
    {"join", join},
    {"last", last},
    {"length", length_filter},
    {"list", list_filter},
    {"map", map_filter},
    {"max", max_filter},
    {"min", min_filter},
    {"reject", reject},
    {"rejectattr", rejectattr},
    {"reverse", reverse_filter},
    {"select", select},
    {"selectattr", selectattr},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

std::span<const Filter> sequence_filters() { return kFilters; }

}  // namespace temper::data::jinja
