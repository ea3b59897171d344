#pragma once

#include <string>

#include <gtest/gtest.h>

#include "data/text/chat_template.h"
#include "data/text/jinja/utf8.h"
#include "recipes/diagnostic.h"

/// One case of a template: its input, and what transformers made of it: "text" (with "generation",
/// spans in code points), or "error".
namespace temper::data {

inline Json spans_in_code_points(const RenderedChat& chat) {
  Json spans = Json::array();
  const std::string_view text = chat.text;
  for (const auto& [begin, end] : chat.generation_spans) {
    spans.push_back(
        {jinja::utf8_count(text.substr(0, begin)), jinja::utf8_count(text.substr(0, end))});
  }
  return spans;
}

inline void check_case(const ChatTemplate& chat_template, const Json& expected, const Json& extra,
                       const std::string& where) {
  const ChatInput input{expected["messages"], expected["tools"],
                        expected["add_generation_prompt"].get<bool>(), extra};
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

}  // namespace temper::data
