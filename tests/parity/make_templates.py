#!/usr/bin/env python3
"""Golden files for the template language, from transformers 5.23.0 and Jinja2 3.1.6.

    make_templates.py --out tests/parity/golden [--seed 0] [--cases 400]

Makes up templates out of the language's parts (tags with every white space mark, loops, macros, namespaces, filters, tests, methods) over
made-up conversations and values, and writes what transformers renders from them: text and generation spans in code points, or that it is an
error (templates/cases.jsonl, the values on its first line). Equality is exact; of errors only that they are errors. TEMPER_LONG=1: 5,000 cases.
"""
import argparse
import json
import os
import pathlib
import random
import re

import transformers.utils.chat_template_utils as reference

STRINGS = ["", " ", "a", "Abc def", "  two  words ", "\nline\r\nend\n", "it's", '"q"', "ß ǆ Σ", "日本語🙂👍🏽", "<think>\nx\n</think>\n\ny", "1", "-2",
           " 3.5e1 ", "a,b,,c", "<b>&</b>", "x\ty", "%s and %d", '{"k": [1]}', "\u00a0\u2028z", "ÀÉ-o'neil (x)", "tool"]
VALUES = {
    "s": "Hello, World", "e": "", "u": "naïve ✓ 🙂", "ml": "one\n two\n\nthree\n", "i": 7, "z": 0, "n": -3, "f": 2.5, "g": 1e20, "t": True, "no": None,
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "m": [{"k": "x", "v": 2}, {"k": "Y", "v": 1}, {"v": 3}], "el": [], "ed": {},
    "d": {"b": 1, "a": {"c": [1, {"x": None}], "items": 5}, "k": "v"}, "mix": [1, "1", 1.0, True, None, [1], {"1": 1}],
}
ROLES = ["system", "user", "assistant", "tool", "odd"]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds <a> & 'b'", "parameters": {"type": "object"}}}, {"name": "bare"}]

# Parts of the language; {x} is any expression, {q} a sequence, {w} a text, {a} an attribute, {b} a boolean, {c} a test by name, {s} a literal string.
FILTERS = """
{x} | length;{q} | list;{q} | first;{q} | last;{q} | join;{q} | join({s});{q} | join(',', attribute={a});{q} | map(attribute={a}) | list
{q} | map(attribute={a}, default='-') | join;{q} | map('upper') | list;{q} | map('tojson') | list;{q} | map('first') | list;{q} | map('replace', 'a', 'b') | list
{q} | select({c}) | list;{q} | reject({c}) | list;{q} | selectattr('k', {c}) | list;{q} | rejectattr({a}) | list;{q} | selectattr('role', {c}) | list
messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list;messages | rejectattr('role', 'in', ['user', 'tool']) | list
{q} | sort;{q} | sort(reverse={b}, case_sensitive={b});{q} | sort(attribute={a});{q} | unique | list;{q} | unique(true) | join;{q} | reverse | list;{w} | reverse
{q} | max;{q} | min(case_sensitive={b});{q} | sum;m | sum(attribute='v');m | max(attribute='v');{q} | batch(2) | list;{q} | batch(2, '-') | list
{x} | items | list;{x} | dictsort(by='value', reverse={b});d | dictsort;{x} | dictsort
{x} | tojson;{x} | tojson(indent=2);{x} | tojson(indent=0);{x} | tojson(ensure_ascii={b}, separators=(',', ':'));{x} | tojson(sort_keys=true)
{x} | string;{x} | default('dflt');{x} | default('dflt', true);absent | d({x});{w} | trim;{w} | trim('ax ');{w} | upper;{w} | lower;{w} | title;{w} | capitalize
{w} | replace({s}, {s});{w} | replace('a', 'b', 1);{w} | indent;{w} | indent(2, {b}, {b});{w} | indent('> ');{w} | center(20);{w} | truncate(7)
{w} | truncate(5, true, '..', 0);{w} | wordcount;{w} | safe;{w} | escape;{w} | e;{w} | forceescape;{x} | int;{x} | int(5);{w} | int(0, 16);{x} | float;{x} | abs
{x} | round;f | round(1, 'floor');2.675 | round(2);g | round(-1);i | round(2, 'ceil');{w} | format({x});'%s: %5.2f|%-5s|%05d|%x' | format(s, f, 'a', i, i)
{w} | count;{x} | attr('k');{w} | string | list
"""
METHODS = """
strip();strip('\\n ');lstrip();rstrip('d');upper();lower();title();capitalize();split({s});split();split(' ', 1);rsplit('o', 1);rsplit();splitlines()
splitlines(true);startswith({s});startswith(('H', 'x'));endswith({s});replace({s}, {s});replace('o', '0', 1);find({s});rfind('o');index('o');count('o');count('')
isdigit();isalpha();isalnum();isspace();isupper();islower();isnumeric();isdecimal();zfill(12);ljust(14, '.');rjust(14)
center(13, '*');join({x});join(ls);partition(',');rpartition(',');removeprefix('He');removesuffix('ld');items()
keys() | list;values() | list;get('k');get('q', {x});copy();index(1);count(1);append(1);pop();update({{}})
"""
TESTS = """
defined;undefined;none;string;mapping;iterable;sequence;number;integer;float;boolean;true;false;odd;even;callable;lower;upper;eq 1;equalto('a');ne none
in [1, 'a', none];in 'abc';divisibleby 2;sameas none;sameas(true);gt 1;lessthan(3);ge(0);filter;test;escaped
"""
PATHS = """
d.a.c;d['a'];d.k;s.__class__;d.a['items'];d.absent;d.absent.more;m[0].k;m[-1].k;m[9];messages[0].role;messages[0]['content'];messages[-1].tool_calls
tools[0].function.name;d.items();d.get('k');d.get('q', 1);mix[5];s.0;m[0]['k'].lower();messages[0].get('role');messages | length;range(3);range(5, 0, -2)
range(i);dict(a=1);dict(d, z=3);dict([(1, 2)]);cycler('a', 'b').next();joiner('|');namespace(a=1).a
"""
LOOP = "index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle('x','y','z') changed(i)".split()


def parts(table):
    return [part for line in table.strip().splitlines() for part in line.split(";")]


FILTERS, METHODS, TESTS, PATHS = map(parts, (FILTERS, METHODS, TESTS, PATHS))


class Maker:
    """Random templates, nested as deep as `depth` allows."""

    def __init__(self, rng):
        self.rng = rng
        self.names = []  # variables in sight
        self.macros = []
        self.loops = 0

    def pick(self, *choices):
        return self.rng.choice(choices)

    def chance(self, probability):
        return self.rng.random() < probability

    def string(self):
        text, quote = self.rng.choice(STRINGS), self.pick("'", '"')
        for plain, escaped in (("\\", "\\\\"), (quote, "\\" + quote), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
            text = text.replace(plain, escaped)
        return quote + text + quote

    def name(self):
        if self.names and self.chance(0.4):
            return self.rng.choice(self.names)
        return self.pick(*VALUES, *VALUES, "messages", "messages", "tools", "absent", "add_generation_prompt", "documents")

    def atom(self):
        number = self.pick("0", "1", "2", "-1", "10", "1.0", "0.5", "1e3", "1_000")
        constant = self.pick("true", "none", "False", "[]", "{}", "()")
        return self.pick(self.name(), self.name(), self.name(), self.string(), number, constant, self.rng.choice(PATHS))

    def operand(self, depth):
        """An expression that binds tightly."""
        made = self.value(depth - 1)
        return made if re.fullmatch(r"[\w.]+|'[^']*'", made) or self.chance(0.05) else f"({made})"

    def fill(self, part, depth):
        """A part of the language with expressions in its gaps."""
        gaps = {
            "x": lambda: self.operand(depth), "w": lambda: self.pick("s", "u", "ml", "e", self.string(), self.operand(depth)),
            "q": lambda: self.pick("l", "ls", "m", "mix", "messages", "s", "el", "d", "tools", self.operand(depth)), "b": lambda: self.pick("true", "false"),
            "a": lambda: self.pick("'v'", "'k'", "'role'", "'a.c'", "0"), "s": self.string,
            "c": lambda: self.pick("'defined'", "'string'", "'none'", "'odd'", "'gt', 1", "'equalto', 'user'", "'in', [1, 'user', 'a']", "'mapping'", "'eq', none"),
        }  # fmt: skip
        return re.sub(r"\{([xwqbasc])\}", lambda gap: gaps[gap[1]](), part).replace("{{}}", "{}")

    def subscript(self, depth):
        base = self.pick("s", "u", "l", "ls", "m", "mix", "messages", "ml", self.name())
        if self.chance(0.3):
            return f"{base}[{self.pick('0', '-1', '1', '5', 'i', self.string(), 'true')}]"
        start, stop, step = (self.pick("", "", "0", "1", "-1", "2", "-2", "9", "-9", "none") for _ in range(3))
        return f"{base}[{start}:{stop}{self.pick('', '', ':', ':' + step)}]"

    def arguments(self):
        given = [self.value(1) for _ in range(self.rng.randint(0, 2))] + (["b=" + self.atom()] if self.chance(0.3) else [])
        return ", ".join(given)

    def value(self, depth):
        """Any expression."""
        if depth <= 0:
            return self.atom()
        below = depth - 1
        kind = self.rng.choices(["filter", "method", "slice", "operator", "condition", "choice", "display", "logic", "macro", "loop", "atom"], [7, 4, 3, 3, 3, 2, 2, 2, 1, 2, 4])[0]
        if kind == "filter":
            return self.fill(self.rng.choice(FILTERS), depth)
        if kind == "method":
            return self.pick("s", "u", "ml", "d", "ls", self.operand(depth)) + "." + self.fill(self.rng.choice(METHODS), depth)
        if kind == "slice":
            return self.subscript(depth)
        if kind == "operator":
            if self.chance(0.1):
                return f"{self.operand(depth)} ** {self.pick('2', '3', '-1')}"
            return f"{self.operand(depth)} {self.pick('+', '+', '-', '*', '/', '//', '%', '~', '~')} {self.operand(depth)}"
        if kind == "condition":
            return self.condition(depth)
        if kind == "choice":
            return f"({self.value(below)} if {self.condition(below)}{self.pick(' else ' + self.value(below), '')})"
        if kind == "display":
            one, other = self.value(below), self.value(below)
            return self.pick(f"[{one}, {other}]", f"({one}, {other})", f"({one},)", f"{{{self.string()}: {one}, 'k': {other}}}", f"-{self.operand(depth)}")
        if kind == "logic":
            return f"({self.value(below)} {self.pick('and', 'or')} {self.value(below)})"
        if kind == "macro" and self.macros:
            return f"{self.rng.choice(self.macros)}({self.arguments()})"
        if kind == "loop" and self.loops:
            return "loop." + self.rng.choice(LOOP)
        return self.atom()

    def condition(self, depth):
        left, right = self.operand(depth), self.operand(depth)
        comparison = self.pick("==", "!=", "<", "<=", ">", ">=", "in", "not in")
        negated = self.pick("", "not ")
        return self.pick(f"{left} {comparison} {right}", f"not {left}", f"{left} is {negated}{self.rng.choice(TESTS)}", f"{left} is {negated}{self.rng.choice(TESTS)}", left, f"1 < {left} < 5",
                         f"{left} or {right}", f"{self.name()} is defined and {right}", f"messages[0].role == '{self.rng.choice(ROLES)}'")  # fmt: skip

    def tag(self, inside, kind="%"):
        marks = ["", "", "-", "-", "+"] if kind == "%" else ["", "", "-"]
        close = "}" if kind == "{" else kind
        return "{" + kind + self.rng.choice(marks) + self.pick(" ", " ", "  ", "\n") + inside + self.pick(" ", " ", "\n ") + self.rng.choice(marks) + close + "}"

    def text(self):
        return self.pick("", "", " ", "\n", "\n\n", "  \n  ", "x", " y ", "<|im_start|>", "é🙂\n", "\t", "a\n  ", "{ ", "}", "# ", "\r\n")

    def block(self, depth, loops=None):
        """Statements; what they name is forgotten at their end."""
        names, macros, outer = list(self.names), list(self.macros), self.loops
        self.loops = outer if loops is None else loops
        made = self.text() + "".join(self.statement(depth) + self.text() for _ in range(self.rng.randint(1, 3)))
        if self.loops > outer and self.chance(0.15):
            made += self.tag("if " + self.condition(1)) + self.tag(self.pick("break", "continue")) + self.tag("endif")
        self.names, self.macros, self.loops = names, macros, outer
        return made

    def with_names(self, names, make):
        self.names += names
        made = make()
        del self.names[-len(names):]
        return made

    def statement(self, depth):
        if depth <= 0 or self.chance(0.4):
            return self.tag(self.value(2), "{")
        kinds = {"for": 6, "items": 1, "if": 5, "set": 4, "namespace": 2, "macro": 2, "call": 1, "capture": 1, "generation": 3, "filter": 1, "comment": 1, "raw": 0.5, "refusal": 0.3}
        return getattr(self, "make_" + self.rng.choices(list(kinds), list(kinds.values()))[0])(depth - 1)

    def fresh(self):
        return self.pick("x", "y", "content", "message")

    def make_for(self, depth):
        name, source = self.fresh(), self.pick("messages", "messages", "l", "ls", "m", "d", "s", "range(4)", "el", "messages[::-1]", "tools or []", self.operand(2))
        filtered = f" if {name} {self.pick('is not none', '!= 1', 'is string', 'in [1, 2, 3]')}" if self.chance(0.25) else ""
        made = self.tag(f"for {name} in {source}{filtered}") + self.with_names([name], lambda: self.block(depth, self.loops + 1))
        return made + (self.tag("else") + self.block(depth) if self.chance(0.25) else "") + self.tag("endfor")

    def make_items(self, depth):
        source = self.pick("d.items()", "d | items", "d | dictsort", "[(1, 2), (3, 4)]", "ls")
        return self.tag(f"for key, val in {source}") + self.with_names(["key", "val"], lambda: self.block(depth, self.loops + 1)) + self.tag("endfor")

    def make_if(self, depth):
        made = self.tag("if " + self.condition(2)) + self.block(depth)
        made += self.tag("elif " + self.condition(1)) + self.block(depth) if self.chance(0.3) else ""
        return made + (self.tag("else") + self.block(depth) if self.chance(0.5) else "") + self.tag("endif")

    def make_set(self, _):
        if self.chance(0.15):
            return self.tag("set x, y = " + self.pick("1, 2", "l[:2]", "(s, u)", "s"))
        name = self.fresh()
        made = self.tag(f"set {name} = {self.value(2)}")
        self.names.append(name)
        return made

    def make_namespace(self, _):
        self.names.append("ns")
        start, name = self.pick("a=1", "d", "a=l, b=s", ""), self.pick("a", "k", "_x", "k")
        return self.tag(f"set ns = namespace({start})") + self.text() + self.tag(f"set ns.{name} = {self.value(1)}") + self.tag("ns." + self.pick("a", "k"), "{")

    def make_macro(self, depth):
        name, parameters = self.pick("show", "row"), self.pick("", "a", "a, b=2", "a=s, b=a", "message")
        use = self.pick("", "", self.tag("varargs", "{"), self.tag("kwargs", "{"), self.tag("caller(1)", "{"))
        made = self.tag(f"macro {name}({parameters})") + self.with_names(["a", "b"], lambda: self.block(depth, 0)) + use + self.tag("endmacro")
        self.macros.append(name)
        return made + self.tag(f"{name}({self.arguments()})", "{")

    def make_call(self, depth):
        if not self.macros:
            return self.text()
        return self.tag(f"call{self.pick('', '(v)')} {self.rng.choice(self.macros)}({self.arguments()})") + self.block(depth, 0) + self.tag("endcall")

    def make_capture(self, depth):
        name = self.fresh()
        return self.tag(f"set {name}{self.pick('', ' | upper', ' | trim | length')}") + self.block(depth) + self.tag("endset") + self.tag(name, "{")

    def make_generation(self, depth):
        return self.tag("generation") + self.block(depth, 0) + self.tag("endgeneration")

    def make_filter(self, depth):
        return self.tag("filter " + self.pick("upper", "trim", "indent(2)", "replace('a', 'b') | length")) + self.block(depth) + self.tag("endfilter")

    def make_comment(self, _):
        return self.pick("{# c #}", "{#- c -#}", "{#+ c\n#}", "  {# a {{ b }} #}\n")

    def make_raw(self, _):
        return self.pick("{% raw %}", "{%- raw -%}") + self.pick("{{ x }}", "\n{% if %}\n", " ") + self.pick("{% endraw %}", "{%- endraw -%}")

    def make_refusal(self, _):
        return self.tag("if " + self.condition(1)) + self.tag("raise_exception('no ' ~ " + self.atom() + ")", "{") + self.tag("endif")


def conversation(rng):
    messages = []
    for _ in range(rng.randint(1, 4)):
        message = {"role": rng.choice(ROLES), "content": rng.choice(STRINGS)}
        if rng.random() < 0.15:
            message["tool_calls"] = [{"type": "function", "function": {"name": "add", "arguments": {"a": rng.choice([1, 2.5, None, "é"])}}}]
        if rng.random() < 0.1:
            message[rng.choice(["reasoning_content", "thinking", "reasoning"])] = "why"
        if rng.random() < 0.1:
            message["content"] = [{"type": "text", "text": "part"}]
        messages.append(message)
    return messages


def make_case(rng):
    case = {"template": Maker(rng).block(3), "messages": conversation(rng), "tools": TOOLS if rng.random() < 0.4 else None, "add_generation_prompt": rng.random() < 0.3}
    try:
        texts, spans = reference.render_jinja_template([case["messages"]], tools=case["tools"], chat_template=case["template"], return_assistant_tokens_mask=True,
                                                       add_generation_prompt=case["add_generation_prompt"], **VALUES)  # fmt: skip
        return case | {"text": texts[0], "generation": spans[0]}
    except Exception as error:  # of any class: the template or its input is refused
        return case | {"error": type(error).__name__, "message": str(error).split("\n")[0][:200]}


def is_comparable(case):
    """Not what Python prints of its own memory or beyond 64 bits, nor spans of what no one prints."""
    if any(end > len(case["text"]) for _, end in case.get("generation", [])):
        return False
    return not re.search(r" at 0x|<built-in|<bound method|<class |<function |[{([]\.\.\.[])}]|\d{19}", case.get("text", ""), re.I)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=5000 if os.environ.get("TEMPER_LONG") == "1" else 400)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    (arguments.out / "templates").mkdir(parents=True, exist_ok=True)
    with open(arguments.out / "templates/cases.jsonl", "w", encoding="utf-8") as file:
        file.write(json.dumps(VALUES, ensure_ascii=False) + "\n")
        written = 0
        while written < arguments.cases:
            case = make_case(rng)
            # Most made-up templates err somewhere; few of those say enough.
            if is_comparable(case) and ("text" in case or rng.random() < 0.2):
                file.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")
                written += 1


if __name__ == "__main__":
    main()
