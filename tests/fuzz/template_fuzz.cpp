// Chat templates: the source is the input, the chat is fixed.
#include "data/text/chat_template.h"
#include "recipes/diagnostic.h"
#include "tests/fuzz/driver.h"

namespace temper::fuzz {
namespace {

void run(std::string_view source, const std::filesystem::path&) {
  using data::Json;
  static const data::ChatInput input{
      .messages = Json::parse(R"([{"role": "system", "content": "Be brief."},
          {"role": "user", "content": "Wie geht's? 🙂 <b>"},
          {"role": "assistant", "content": "So\n so", "reasoning": "hm",
           "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1.5}}}]}])"),
      .tools = Json::parse(R"([{"name": "add", "parameters": {"type": "object"}}])"),
      .add_generation_prompt = true,
      .extra = Json::parse(R"({"s": "Hello, World", "l": [3, 1, 2], "d": {"b": 1, "a": [null]}})")};
  try {
    data::ChatTemplate::parse(std::string(source), "t").render(input);
  } catch (const UserError&) {  // refused, as most are
  }
}

}  // namespace

Target target() {
  return {
      .suffix = ".jinja",
      .seeds =
          {
              "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}{% if m.role == 'assistant' %}{% "
              "generation %}{{ m['content'] | trim }}{% endgeneration %}{% else %}{{ m.content "
              "}}{% "
              "endif %}{% endfor %}",
              "{%- set ns = namespace(x=0, y=none) -%}{% for i in range(4) if i % 2 %}{% set ns.x "
              "= "
              "ns.x + loop.index0 %}{{ loop.cycle('a', 'b') }}{% else %}-{% endfor %}{{ ns.x }}",
              "{% macro show(a, b='2', c=[]) %}{{ a ~ b }}{{ varargs }}{{ kwargs }}{{ caller(a) "
              "}}{% "
              "endmacro %}{% call(v) show(1, b=s[1:-1:2]) %}{{ v }}{% endcall %}",
              "{% set t %}{{ tools | tojson(indent=2) }}{% endset %}{% filter upper %}{{ t }}{% "
              "endfilter %}{% raw %}{{ x }}{% endraw %}{# no #}{{ l | sort | join(',') }}",
              "{{ (messages | selectattr('role', 'equalto', 'user') | list | "
              "first).content.split(' "
              "')[-1].strip().replace('a', 'b') }}{{ '%5.2f|%-4s' | format(1.5, s) }}",
              "{% for k, v in d.items() %}{{ k }}={{ v is mapping or v is iterable }}{{ not v }}{{ "
              "-1 "
              "** 2 // 3 }}{{ 1 < 2 <= 3 }}{{ {'a': (1,)} }}{% endfor %}{{ raise_exception('x') }}",
          },
      .words = {"{{ ",
                " }}",
                "{% ",
                " %}",
                "{%- ",
                " -%}",
                "{% if x %}",
                "{% else %}",
                "{% endif %}",
                "{% for x in l %}",
                "{% endfor %}",
                "{% set x = ",
                "{% break %}",
                " is defined",
                " | ",
                "loop.",
                "messages",
                "namespace(",
                "range(",
                "dictsort",
                "groupby('a')",
                "map(attribute=",
                "batch(2)",
                "tojson",
                "truncate(",
                "indent(",
                "center(",
                "zfill(",
                " ** ",
                " // ",
                " ~ ",
                "[::-1]",
                "%s",
                "99999999999",
                "*[1]",
                "**d",
                "\\u00e9",
                "{% generation %}",
                "{% endgeneration %}",
                "{% macro m() %}",
                "{% endmacro %}",
                "m()",
                "\xF0\x9F\x98\x80",
                "'",
                "\"",
                "(",
                ")",
                "{",
                "}"},
      .run = run};
}

}  // namespace temper::fuzz
