// Real templates with what transformers 5.23.0 renders from them: text and generation marks must be
// equal, and errors errors.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "data/text/chat_template.h"
#include "data/text/jinja/utf8.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

std::filesystem::path templates_directory() {
  const char* shared = std::getenv("TEMPER_SHARED");
  const char* source = std::getenv("TEMPER_SOURCE_DIR");
  const std::filesystem::path root =
      shared ? shared : std::filesystem::path(source ? source : ".") / ".." / "shared";
  return root / "data" / "templates";
}

std::string read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

Json spans_in_code_points(const RenderedChat& chat) {
  Json spans = Json::array();
  const std::string_view text = chat.text;
  for (const auto& [begin, end] : chat.generation_spans) {
    spans.push_back(
        {jinja::utf8_count(text.substr(0, begin)), jinja::utf8_count(text.substr(0, end))});
  }
  return spans;
}

void check_case(const ChatTemplate& chat_template, const Json& expected, const std::string& where) {
  const ChatInput input{expected["messages"], expected["tools"],
                        expected["add_generation_prompt"].get<bool>(), expected["extra"]};
  if (expected.contains("error")) {
    EXPECT_THROW(chat_template.render(input), UserError) << where;
    return;
  }
  try {
    const RenderedChat chat = chat_template.render(input);
    EXPECT_EQ(chat.text, expected["text"].get<std::string>()) << where;
    if (expected.contains("generation")) {
      EXPECT_EQ(spans_in_code_points(chat).dump(), expected["generation"].dump()) << where;
    }
  } catch (const UserError& error) {
    ADD_FAILURE() << where << ": " << error.what();
  }
}

TEST(SharedTemplates, RenderAsTransformersDoes) {
  const auto directory = templates_directory();
  if (!std::filesystem::is_directory(directory)) GTEST_SKIP() << directory << " is absent";
  setenv("SOURCE_DATE_EPOCH", "1721995200", 1);  // 2024-07-26 12:00, the clock of the cases
  int templates = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".jinja") continue;
    ++templates;
    const std::string name = entry.path().stem().string();
    const ChatTemplate chat_template = ChatTemplate::parse(read(entry.path()), name);
    std::ifstream cases(directory / (name + ".cases.jsonl"));
    std::string line;
    for (int number = 1; std::getline(cases, line); ++number) {
      check_case(chat_template, Json::parse(line), name + ":" + std::to_string(number));
    }
  }
  EXPECT_GE(templates, 19);
}

}  // namespace
}  // namespace temper::data
