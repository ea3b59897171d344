// Real templates with what transformers 5.23.0 renders from them: text and generation marks must be
// equal, and errors errors.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "data/text/chat_template.h"
#include "tests/data/chat/template_case.h"

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

// The cases are no part of the checkout: where they are absent the test says so, and the goldens of
// tests/parity stand for them.
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
      const Json expected = Json::parse(line);
      check_case(chat_template, expected, expected["extra"], name + ":" + std::to_string(number));
    }
  }
  EXPECT_GE(templates, 19);
}

}  // namespace
}  // namespace temper::data
