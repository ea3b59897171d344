// The template language: each case is a template and what Python's Jinja2 3.1.6 prints for it.
#include <cstdlib>

#include <gtest/gtest.h>

#include "data/text/chat_template.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

std::string render(const std::string& source, const Json& extra = Json::object()) {
  return ChatTemplate::parse(source, "t")
      .render({.messages = Json::array(),
               .tools = nullptr,
               .add_generation_prompt = false,
               .extra = extra})
      .text;
}

std::string error_of(const std::string& source) {
  try {
    return "rendered: " + render(source);
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(Jinja, ValuesPrintAsPythonPrintsThem) {
  EXPECT_EQ(render("{{ [1, 'a', none, true, 1.5, {'k': (1,)}] }}"),
            "[1, 'a', None, True, 1.5, {'k': (1,)}]");
  EXPECT_EQ(render("{{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ -0.0 }} {{ 1e308 * 10 }}"),
            "1e+16 1000000000000000.0 0.0001 1e-05 -0.0 inf");
  EXPECT_EQ(render("{{ [\"it's\", '\"', 'a\\n\\x07é\\u200b'] }}"),
            "[\"it's\", '\"', 'a\\n\\x07é\\u200b']");
  EXPECT_EQ(render("{{ {'a': 1}.items() }} {{ range(3) }} {{ namespace(a=1) }}"),
            "dict_items([('a', 1)]) range(0, 3) <Namespace {'a': 1}>");
}

TEST(Jinja, ArithmeticFloorsAndPromotesAsPython) {
  EXPECT_EQ(render("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 2 ** 3 ** 2 }} {{ 2 ** "
                   "-1 }} {{ true + 1 }}"),
            "-4 2 -2 3.5 64 0.5 2");
  EXPECT_EQ(render("{{ -7.5 // 2 }} {{ 5.5 % -2 }} {{ -2 | abs }}"), "-4.0 -0.5 2");
}

TEST(Jinja, UndefinedIsEmptyUntilItIsUsed) {
  EXPECT_EQ(
      render("[{{ x }}{% for i in x %}{{ i }}{% endfor %}{{ 'no' if not x }}{{ x | length }}]"),
      "[no0]");
  EXPECT_EQ(error_of("{{ x.y }}"), "t:1:6: 'x' is undefined");
  EXPECT_EQ(error_of("\n{{ x + 1 }}"), "t:2:4: 'x' is undefined");
  EXPECT_EQ(error_of("{{ {}.a() }}"), "t:1:7: 'dict' has no attribute 'a'");
  EXPECT_EQ(error_of("{{ {'a': 1}.b.c }}"), "t:1:15: 'dict' has no attribute 'b'");
}

TEST(Jinja, AttributesPreferMethodsAndSubscriptsPreferItems) {
  EXPECT_EQ(render("{{ d['items'] }} {{ d.items() | list }} {{ d.x }} {{ l.5 is defined }}",
                   Json::parse(R"({"d": {"items": 1, "x": 2}, "l": [0]})")),
            "1 [('items', 1), ('x', 2)] 2 False");
}

TEST(Jinja, WhitespaceMarksAndBlockLinesAreTrimmed) {
  EXPECT_EQ(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(render("a\n  {%+ if true %}b{% endif +%}\nc\r\n"), "a\n  b\nc");
  EXPECT_EQ(render("a \n {{- 'b' -}} \n c {#- gone -#} d"), "abcd");
  EXPECT_EQ(render("{% raw -%} {{ x }} {%- endraw %}"), "{{ x }}");
}

TEST(Jinja, SetInALoopEndsWithTheRoundAndNamespacesStay) {
  EXPECT_EQ(render("{% set x = 0 %}{% set n = namespace(x=0) %}{% for i in [1, 2] %}{% set x = i "
                   "%}{% set n.x = n.x + i %}{% endfor %}{{ x }} {{ n.x }}"),
            "0 3");
  EXPECT_EQ(render("{% if true %}{% set x = 5 %}{% endif %}{{ x }}"), "5");
}

TEST(Jinja, LoopsKnowWhereTheyAre) {
  EXPECT_EQ(render("{% for a, b in [(1, 2), (3, 4)] %}{{ loop.index }}{{ loop.last }}{{ a + b }}{{ "
                   "loop.previtem[0] if loop.previtem is defined }};{% endfor %}"),
            "1False3;2True71;");
  EXPECT_EQ(render("{% for i in range(9) if i % 2 %}{% if i == 7 %}{% break %}{% endif %}{{ "
                   "loop.length }}{{ i }} {% else %}none{% endfor %}"),
            "41 43 45 ");
  EXPECT_EQ(render("{% for i in [] %}{% else %}none{% endfor %}"), "none");
}

TEST(Jinja, ElseOfALoopRunsUnlessARoundReachedItsEnd) {
  EXPECT_EQ(render("{% for i in [1, 2] %}{% continue %}{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(render("{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{% else %}none{% "
                   "endfor %}"),
            "");
}

TEST(Jinja, FiltersTakeWhatIsFalseForNothing) {
  EXPECT_EQ(render("{{ none | map('upper') | list }}{{ none | select | list }}"), "[][]");
  EXPECT_EQ(render("{{ [3, 1] | sort(attribute='a') }}{{ 25 | round(-1) }}{{ true | round }}"),
            "[3, 1]20"
            "1");
  EXPECT_EQ(error_of("{{ [[1]] | unique | list }}"), "t:1:12: unhashable type: 'list'");
  EXPECT_EQ(error_of("{{ 5[1:] }}"), "t:1:5: 'int' cannot be sliced");
  EXPECT_EQ(error_of("{% filter length %}abc{% endfilter %}"),
            "t:1:20: a filter block must make text, not 'int'");
}

TEST(Jinja, IndentTakesTextAlone) {
  EXPECT_EQ(render("{{ 'a\nb' | indent(2) }}"), "a\n  b");
  EXPECT_EQ(error_of("{{ true | indent }}"), "t:1:11: indent: needs a string, not 'bool'");
}

TEST(Jinja, WhatCannotBeAKeyIsNotLookedUp) {
  EXPECT_EQ(error_of("{{ [1] in {} }}"), "t:1:4: unhashable type: 'list'");
  EXPECT_EQ(error_of("{{ {}.get({}) }}"), "t:1:7: unhashable type: 'dict'");
}

TEST(Jinja, MacrosTakeDefaultsKeywordsAndCallers) {
  EXPECT_EQ(render("{% macro m(a, b=a ~ '!', c='x') %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs "
                   "}}{% endmacro %}{{ m('1', c=2, d=3) }}"),
            "11!2(){'d': 3}");
  EXPECT_EQ(
      render(
          "{% macro m() %}[{{ caller(1) }}]{% endmacro %}{% call(v) m() %}v{{ v }}{% endcall %}"),
      "[v1]");
  EXPECT_EQ(error_of("{% macro m() %}{% endmacro %}{{ m(1) }}"),
            "t:1:33: macro 'm' takes not more than 0 argument(s)");
}

TEST(Jinja, JsonKeepsKeyOrderAndCharacters) {
  EXPECT_EQ(render("{{ {'z': [1.0, none], 'a': '<é\\n'} | tojson }}"),
            R"({"z": [1.0, null], "a": "<é\n"})");
  EXPECT_EQ(render("{{ {'b': [], 'a': {'c': 1}} | tojson(indent=2, sort_keys=true) }}"),
            "{\n  \"a\": {\n    \"c\": 1\n  },\n  \"b\": []\n}");
}

TEST(Jinja, SafeStringsEscapeWhatIsAddedToThem) {
  EXPECT_EQ(render("{{ '<a>' + ('<b>' | safe) }} {{ '<a>' ~ ('<b>' | safe) }} {{ '<b>' | safe }}"),
            "&lt;a&gt;<b> <a><b> <b>");
}

TEST(Jinja, SlicesCountCharacters) {
  EXPECT_EQ(render("{{ 'añb🙂'[::-1] }} {{ 'añb🙂'[-2:] }} {{ [1, 2, 3][5:] }} {{ (1, 2, "
                   "3)[::2] }} {{ 'abc'[7] is defined }}"),
            "🙂bña b🙂 [] (1, 3) False");
}

TEST(Jinja, CaseFollowsUnicode) {
  EXPECT_EQ(render("{{ 'straße ǆ' | upper }} {{ 'ΟΔΟΣ' | lower }} {{ \"it's a-b\" | title }} {{ "
                   "\"it's\".title() }}"),
            "STRASSE Ǆ οδος It's A-B It'S");
}

TEST(Jinja, GeneratorsAreReadOnceAndAlwaysTrue) {
  EXPECT_EQ(render("{% set g = [1, 2] | select('odd') %}{{ g | list }}{{ g | list }}{{ 'yes' if [] "
                   "| select }}"),
            "[1][]yes");
}

TEST(Jinja, TheSandboxRefusesChangesAndPrivateNames) {
  EXPECT_EQ(error_of("{{ [].append(1) }}"),
            "t:1:7: access to attribute 'append' of 'list' object is unsafe");
  EXPECT_EQ(error_of("{% set n = namespace(_a=1) %}"),
            "t:1:12: namespace attributes must not begin with an underscore: '_a'");
  EXPECT_EQ(error_of("{{ range(100001) }}"),
            "t:1:4: range too big: the sandbox allows 100000 items");
}

TEST(Jinja, RunawayTemplatesAreStopped) {
  EXPECT_EQ(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            "t:1:19: the template recurses too deeply");
  EXPECT_EQ(error_of("{{ 'abcdefgh' * 100000000 }}"),
            "t:1:4: the template makes more than 64 MiB of text");
  EXPECT_EQ(error_of("{% set n = namespace(s='abcdefgh') %}{% for i in range(99) %}{% set n.s = "
                     "n.s + n.s %}{% endfor %}"),
            "t:1:75: the template makes more than 64 MiB of text");
  EXPECT_EQ(error_of("{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l] "
                     "%}{% endfor %}"),
            "t:1:58: values nested deeper than 100 levels");
}

TEST(Jinja, TemplatesThatRunTooLongAreStopped) {
  const std::string deep = "{% for i in range(99999) %}{% for j in range(99999) %}";
  const std::string ends = "{% endfor %}{% endfor %}";
  for (const char* body : {"", "{% set x = range(99999) | list %}", "{% set x = [] == range(9) %}",
                           "{% set x = 'abc' * 99999 in 'abc' * 999 %}", "{{ i ~ j }}"}) {
    const std::string said = error_of(deep + body + ends);
    EXPECT_TRUE(said.ends_with("the template runs too long")) << body << ": " << said;
  }
}

TEST(Jinja, FaultsOfTheSourceAreFoundBeforeRendering) {
  EXPECT_EQ(error_of("a\n{{ x | nofilter }}"), "t:2:8: unknown filter 'nofilter'");
  EXPECT_EQ(error_of("{% if x %}"), "t:1:11: the template ends before 'endif'");
  EXPECT_EQ(error_of("{% include 'x' %}"), "t:1:4: 'include' is not supported in chat templates");
  EXPECT_EQ(error_of("{{ (1 }}"), "t:1:7: unexpected '}'");
  EXPECT_EQ(error_of("{{ 'a"), "t:1:4: a string without its closing quote");
  EXPECT_EQ(error_of("{% for x in y recursive %}{% endfor %}"),
            "t:1:15: recursive loops are not supported in chat templates");
  EXPECT_EQ(error_of(std::string(5000, '(')), std::string(5000, '(').insert(0, "rendered: "));
  EXPECT_EQ(error_of("{{ " + std::string(5000, '(') + " }}").substr(0, 4), "t:1:");
}

TEST(ChatTemplate, RaiseExceptionEndsTheRenderingWithItsText) {
  EXPECT_EQ(error_of("\n{{ raise_exception('roles must alternate') }}"),
            "t:2:4: roles must alternate");
}

TEST(ChatTemplate, TheClockIsSourceDateEpoch) {
  setenv("SOURCE_DATE_EPOCH", "0", 1);
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}"), "01 Jan 1970");
  setenv("SOURCE_DATE_EPOCH", "soon", 1);
  EXPECT_EQ(error_of("{{ strftime_now('%d') }}"),
            "t:1:4: SOURCE_DATE_EPOCH = 'soon': must be seconds since 1970");
  unsetenv("SOURCE_DATE_EPOCH");
}

TEST(ChatTemplate, NullKeysAreDroppedAndReasoningHasItsNames) {
  const ChatTemplate chat_template = ChatTemplate::parse("{{ messages }}", "t");
  const Json messages =
      Json::parse(R"([{"role": "assistant", "content": null, "reasoning": "r"}])");
  EXPECT_EQ(chat_template
                .render({.messages = messages,
                         .tools = nullptr,
                         .add_generation_prompt = false,
                         .extra = nullptr})
                .text,
            "[{'thinking': 'r', 'role': 'assistant', 'reasoning': 'r', 'reasoning_content': 'r'}]");
}

TEST(ChatTemplate, GenerationSpansAreBytesOfTheText) {
  const ChatTemplate chat_template = ChatTemplate::parse(
      "é{% generation %}ü{% endgeneration %}.{% generation %}{% endgeneration %}", "t");
  const RenderedChat chat = chat_template.render({.messages = Json::array(),
                                                  .tools = nullptr,
                                                  .add_generation_prompt = false,
                                                  .extra = nullptr});
  EXPECT_TRUE(chat.marked);
  EXPECT_EQ(chat.generation_spans, (std::vector<std::pair<size_t, size_t>>{{2, 4}, {5, 5}}));
}

}  // namespace
}  // namespace temper::data
