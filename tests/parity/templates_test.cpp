// The template language against transformers 5.23.0 and Jinja2 3.1.6, on made-up templates; files
// of make_templates.py. Equality is exact; of errors only that they are errors.
#include <fstream>

#include <gtest/gtest.h>

#include "data/text/chat_template.h"
#include "recipes/diagnostic.h"
#include "tests/data/chat/template_case.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

TEST(TemplatesParity, MadeUpTemplatesRenderAsTransformersRendersThem) {
  std::ifstream stream(golden_files("templates") / "cases.jsonl");
  std::string line;
  ASSERT_TRUE(std::getline(stream, line)) << golden_files("templates") << " is absent or empty";
  const Json values = Json::parse(line);
  for (int number = 2; std::getline(stream, line); ++number) {
    const Json expected = Json::parse(line);
    const std::string source = expected["template"].get<std::string>();
    const std::string where = "cases.jsonl:" + std::to_string(number) + ": " + source;
    try {
      check_case(ChatTemplate::parse(source, "t"), expected, values, where);
    } catch (const UserError& error) {  // it does not parse
      EXPECT_TRUE(expected.contains("error")) << where << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace temper::data
