// Where a model directory keeps its chat templates, and which of several renders a chat.
#include <gtest/gtest.h>

#include "data/text/chat_template.h"
#include "recipes/diagnostic.h"
#include "tests/data/temporary_directory.h"

namespace temper::data {
namespace {

class ChatTemplateFiles : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) { directory_.file(name, text); }

  std::string render(const Json& tools = nullptr) const {
    const auto loaded = ChatTemplate::load(directory_.path());
    if (!loaded) return "no template";
    return loaded->render({.messages = Json::array(), .tools = tools, .extra = nullptr}).text;
  }

  std::string error() const {
    try {
      return "rendered: " + render();
    } catch (const UserError& error) {
      const std::string said = error.what();
      return said.substr(
          said.find(directory_.path().string()) == 0 ? directory_.path().string().size() + 1 : 0);
    }
  }

  TemporaryDirectory directory_;
  const Json tools_ = Json::parse(R"([{"name": "f"}])");
};

TEST_F(ChatTemplateFiles, MayBeAbsent) { EXPECT_EQ(render(), "no template"); }

TEST_F(ChatTemplateFiles, StandInTheConfigAsAStringWithTheSpecialTokens) {
  write("tokenizer_config.json",
        R"({"chat_template": "{{ bos_token }}{{ eos_token }}", "bos_token": "<s>",
            "eos_token": {"content": "</s>"}})");
  EXPECT_EQ(render(), "<s></s>");
}

TEST_F(ChatTemplateFiles, StandInTheConfigAsAListOfWhichToolsChoose) {
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "plain"},
      {"name": "rag", "template": "{% never read %}"},
      {"name": "tool_use", "template": "{{ tools[0].name }}"}]})");
  EXPECT_EQ(render(), "plain");
  EXPECT_EQ(render(tools_), "f");
}

TEST_F(ChatTemplateFiles, OfTheirOwnBeatTheConfig) {
  write("tokenizer_config.json", R"({"chat_template": "config"})");
  write("chat_template.jinja", "file");
  EXPECT_EQ(render(tools_), "file");
  write("additional_chat_templates/tool_use.jinja", "with tools");
  EXPECT_EQ(render(tools_), "with tools");
  EXPECT_EQ(render(), "file");
}

TEST_F(ChatTemplateFiles, WithoutADefaultServeOnlyChatsWithTools) {
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "with tools"}]})");
  EXPECT_EQ(render(tools_), "with tools");
  EXPECT_EQ(error(), "the model has several chat templates, but none is named \"default\"");
}

TEST_F(ChatTemplateFiles, NameThePlaceOfAFault) {
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_EQ(error(),
            "tokenizer_config.json: chat_template must be a string or a list of {name, template}");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "{%"}]})");
  EXPECT_EQ(error(), "tokenizer_config.json:default:1:3: '{%' without '%}'");
  write("chat_template.jinja", "\n {{ messages[0].role }}\n");
  EXPECT_EQ(error(), "chat_template.jinja:2:17: 'list' has no element 0");
}

}  // namespace
}  // namespace temper::data
