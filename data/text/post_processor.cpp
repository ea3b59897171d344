#include "data/text/post_processor.h"

#include <algorithm>
#include <utility>

#include "data/text/byte_level.h"
#include "data/text/unicode.h"

namespace temper::data {

namespace {

bool is_blank(uint32_t c) { return is_whitespace(c) || letter_byte(c) == uint8_t{' '}; }

// `count` characters of text further on, or back.
uint32_t advance(std::string_view text, uint32_t at, uint32_t count) {
  while (count-- > 0 && at < text.size()) at += static_cast<uint32_t>(utf8_size(text[at]));
  return at;
}

uint32_t retreat(std::string_view text, uint32_t at, uint32_t count) {
  while (count-- > 0 && at > 0) {
    do --at;
    while (at > 0 && continues_character(text[at]));
  }
  return at;
}

PostProcessor trim_offsets(bool add_prefix_space) {
  return [add_prefix_space](Tokens& tokens, bool) {
    for (size_t i = 0; i < tokens.offsets.size(); ++i) {
      Span& span = tokens.offsets[i];
      auto [leading, trailing] = tokens.blanks[i];
      // A single first space is the one that the tokenizer put there; of several, all are the
      // text's own.
      if (leading == 1 && add_prefix_space && (i == 0 || span.begin == 0)) leading = 0;
      if (leading > 0) span.begin = std::min(advance(tokens.text, span.begin, leading), span.end);
      if (trailing > 0) span.end = std::max(retreat(tokens.text, span.end, trailing), span.begin);
    }
  };
}

PostProcessor build_sequence(const Component& component) {
  std::vector<PostProcessor> steps;
  for (const Component& child : component.children("processors")) {
    steps.push_back(build_post_processor(child));
  }
  return [steps = std::move(steps)](Tokens& tokens, bool add_special_tokens) {
    for (const PostProcessor& step : steps) step(tokens, add_special_tokens);
  };
}

PostProcessor build_byte_level(const Component& component) {
  if (!component.flag("trim_offsets")) return [](Tokens&, bool) {};
  return trim_offsets(component.flag("add_prefix_space"));
}

std::vector<int32_t> parse_ids(const Component& component, const Json& ids) {
  std::vector<int32_t> result;
  if (!ids.is_array()) component.fail("'ids' of a special token must be an array");
  for (const Json& id : ids) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      component.fail("an id of a special token must be an integer of 0 or more");
    }
    result.push_back(id.get<int32_t>());
  }
  return result;
}

PostProcessor build_template(const Component& component) {
  const Json& specials = component.field("special_tokens");
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  int texts = 0;
  for (const Component& piece : component.children("single")) {
    if (piece.value.is_object() && piece.value.contains("Sequence")) {
      ++texts;
    } else if (piece.value.is_object() && piece.value.contains("SpecialToken")) {
      const Component token{piece.field("SpecialToken"), piece.where};
      const std::string name = token.text("id");
      if (!specials.is_object() || !specials.contains(name)) {
        token.fail("special token '" + name + "' is not listed in special_tokens");
      }
      const Component special{specials[name], component.where + ".special_tokens." + name};
      const std::vector<int32_t> ids = parse_ids(special, special.field("ids"));
      auto& side = texts == 0 ? before : after;
      side.insert(side.end(), ids.begin(), ids.end());
    } else {
      piece.fail("must be a Sequence or a SpecialToken");
    }
  }
  if (texts != 1) component.fail("'single' must hold the sequence A once");
  return surround(std::move(before), std::move(after));
}

// BERT's and RoBERTa's: ["[SEP]", 102] and ["[CLS]", 101].
PostProcessor surround_with_cls_and_sep(const Component& component) {
  const auto id_of = [&](const char* name) {
    const Json& pair = component.field(name);
    if (!pair.is_array() || pair.size() != 2) {
      component.fail("'" + std::string(name) + "' must be [token, id]");
    }
    return parse_ids(component, Json::array({pair[1]}));
  };
  return surround(id_of("cls"), id_of("sep"));
}

PostProcessor build_roberta(const Component& component) {
  PostProcessor surrounding = surround_with_cls_and_sep(component);
  if (!component.flag("trim_offsets")) return surrounding;
  return [trim = trim_offsets(component.flag("add_prefix_space")),
          surrounding = std::move(surrounding)](Tokens& tokens, bool add_special_tokens) {
    trim(tokens, add_special_tokens);
    surrounding(tokens, add_special_tokens);
  };
}

constexpr Builder<PostProcessor> kPostProcessors[] = {
    {"Sequence", build_sequence},         {"TemplateProcessing", build_template},
    {"ByteLevel", build_byte_level},      {"BertProcessing", surround_with_cls_and_sep},
    {"RobertaProcessing", build_roberta},
};

}  // namespace

Blanks count_blanks(std::string_view token) {
  Blanks blanks;
  size_t at = 0;
  bool all_blank = true;
  while (at < token.size()) {
    const CodePoint c = decode_utf8(token, at);
    at += c.size;
    if (!is_blank(c.value)) {
      all_blank = false;
      blanks.trailing = 0;
      continue;
    }
    if (all_blank) ++blanks.leading;
    ++blanks.trailing;
  }
  return blanks;
}

PostProcessor surround(std::vector<int32_t> before, std::vector<int32_t> after) {
  return [before = std::move(before), after = std::move(after)](Tokens& tokens,
                                                                bool add_special_tokens) {
    if (!add_special_tokens) return;
    const bool tracked = tokens.offsets.size() == tokens.ids.size();
    tokens.ids.insert(tokens.ids.begin(), before.begin(), before.end());
    tokens.ids.insert(tokens.ids.end(), after.begin(), after.end());
    if (!tracked) return;
    tokens.offsets.insert(tokens.offsets.begin(), before.size(), Span{});
    tokens.offsets.insert(tokens.offsets.end(), after.size(), Span{});
    tokens.blanks.insert(tokens.blanks.begin(), before.size(), Blanks{});
    tokens.blanks.insert(tokens.blanks.end(), after.size(), Blanks{});
  };
}

PostProcessor build_post_processor(const Component& component) {
  if (component.value.is_null()) return nullptr;
  return build_from<PostProcessor>(kPostProcessors, component);
}

}  // namespace temper::data
