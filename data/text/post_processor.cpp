#include "data/text/post_processor.h"

#include <algorithm>
#include <optional>

#include "data/text/byte_level.h"
#include "data/text/unicode.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// ---- offsets without blanks

// ByteLevel's letter for a space is a blank too.
bool is_blank(uint32_t c) { return is_whitespace(c) || letter_byte(c) == uint8_t{' '}; }

uint32_t leading_blanks(std::string_view token) {
  uint32_t count = 0;
  for (size_t at = 0; at < token.size(); ++count) {
    const CodePoint c = decode_utf8(token, at);
    if (!is_blank(c.value)) break;
    at += c.size;
  }
  return count;
}

uint32_t trailing_blanks(std::string_view token) {
  uint32_t count = 0;
  for (size_t end = token.size(); end > 0; ++count) {
    do --end;
    while (continues_character(token[end]));
    if (!is_blank(decode_utf8(token, end).value)) break;
  }
  return count;
}

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

void trim(Encoding& encoding, std::string_view text, bool add_prefix_space) {
  for (Encoding& window : encoding.overflowing) trim(window, text, add_prefix_space);
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    auto& [begin, end] = encoding.offsets[i];
    uint32_t leading = leading_blanks(encoding.tokens[i]);
    const uint32_t trailing = trailing_blanks(encoding.tokens[i]);
    // A single first space is the one that the tokenizer put there; of several, all are the
    // text's own.
    if (leading == 1 && add_prefix_space && (i == 0 || begin == 0)) leading = 0;
    if (leading > 0) begin = std::min(advance(text, begin, leading), end);
    if (trailing > 0) end = std::max(retreat(text, end, trailing), begin);
  }
}

PostProcessor trim_offsets(bool add_prefix_space) {
  return [add_prefix_space](std::vector<Part>& parts, bool) {
    for (Part& part : parts) trim(part.encoding, part.text, add_prefix_space);
  };
}

PostProcessor build_byte_level(const Component& component) {
  if (!component.flag("trim_offsets")) return [](std::vector<Part>&, bool) {};
  return trim_offsets(component.flag("add_prefix_space"));
}

// ---- templates

// A text of the pair, or special tokens.
struct TemplatePiece {
  std::optional<size_t> text;  // 0: the first, 1: the second
  std::vector<int32_t> ids;
  std::vector<std::string> tokens;
  int32_t type_id = 0;
};
using Template = std::vector<TemplatePiece>;

// Whether each of the texts stands in the template once.
bool holds_texts(const Template& pieces, size_t count) {
  std::vector<int> uses(2);
  for (const TemplatePiece& piece : pieces) {
    if (piece.text) ++uses[*piece.text];
  }
  return uses[0] == 1 && uses[1] == (count == 2 ? 1 : 0);
}

PostProcessor apply_template(Template single, Template pair, std::string where) {
  return [=](std::vector<Part>& parts, bool add_special_tokens) {
    const Template& pieces = parts.size() == 1 ? single : pair;
    if (parts.size() > 2 || !holds_texts(pieces, parts.size())) {
      throw UserError(where + ": " +
                      (parts.size() == 1 ? "'single' must hold the sequence A once"
                                         : "'pair' must hold the sequences A and B once each"));
    }
    std::vector<Part> result;
    for (const TemplatePiece& piece : pieces) {
      if (piece.text) {
        Part& part = result.emplace_back(std::move(parts[*piece.text]));
        part.encoding.type_ids.assign(part.encoding.ids.size(), piece.type_id);
      } else if (add_special_tokens) {
        result.push_back({special_encoding(piece.ids, piece.tokens, piece.type_id), {}});
      }
    }
    parts = std::move(result);
  };
}

int32_t parse_id(const Component& component, const Json& id) {
  if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
    component.fail("an id of a special token must be an integer of 0 or more");
  }
  return id.get<int32_t>();
}

TemplatePiece parse_special(const Component& specials, const std::string& name) {
  if (!specials.value.is_object() || !specials.value.contains(name)) {
    specials.fail("special token '" + name + "' is not listed");
  }
  const Component special{specials.value[name], specials.where + "." + name};
  const Json& ids = special.field("ids");
  const Json& tokens = special.field("tokens");
  if (!ids.is_array() || !tokens.is_array() || ids.size() != tokens.size()) {
    special.fail("'ids' and 'tokens' must be arrays of one length");
  }
  TemplatePiece piece;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!tokens[i].is_string()) special.fail("'tokens' must be strings");
    piece.ids.push_back(parse_id(special, ids[i]));
    piece.tokens.push_back(tokens[i].get<std::string>());
  }
  return piece;
}

Template parse_template(const Component& component, const char* name) {
  const Component specials{component.field("special_tokens"), component.where + ".special_tokens"};
  Template pieces;
  for (const Component& piece : component.children(name)) {
    const bool is_text = piece.value.is_object() && piece.value.contains("Sequence");
    if (!is_text && !(piece.value.is_object() && piece.value.contains("SpecialToken"))) {
      piece.fail("must be a Sequence or a SpecialToken");
    }
    const Component body{piece.field(is_text ? "Sequence" : "SpecialToken"), piece.where};
    if (is_text) {
      pieces.push_back({.text = body.choice("id", {"A", "B"}), .ids = {}, .tokens = {}});
    } else {
      pieces.push_back(parse_special(specials, body.text("id")));
    }
    pieces.back().type_id = static_cast<int32_t>(body.integer("type_id"));
  }
  return pieces;
}

PostProcessor build_template(const Component& component) {
  Template single = parse_template(component, "single");
  if (!holds_texts(single, 1)) component.fail("'single' must hold the sequence A once");
  return apply_template(std::move(single), parse_template(component, "pair"), component.where);
}

// ---- BERT and RoBERTa

// Around the encoding and its windows.
void wrap(Encoding& encoding, const Encoding& before, const Encoding& after) {
  for (Encoding& window : encoding.overflowing) wrap(window, before, after);
  Encoding whole = before;
  append(whole, encoding);
  append(whole, after);
  whole.overflowing = std::move(encoding.overflowing);
  encoding = std::move(whole);
}

// ["[SEP]", 102]
SpecialToken parse_pair(const Component& component, const char* name) {
  const Json& pair = component.field(name);
  if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string()) {
    component.fail("'" + std::string(name) + "' must be [token, id]");
  }
  return {pair[0].get<std::string>(), parse_id(component, pair[1])};
}

Encoding special(const SpecialToken& token, int32_t type_id) {
  return special_encoding(std::vector{token.second}, std::vector{token.first}, type_id);
}

// [CLS] first [SEP] second [SEP]
PostProcessor build_bert(const Component& component) {
  return [cls = parse_pair(component, "cls"), sep = parse_pair(component, "sep")](
             std::vector<Part>& parts, bool add_special_tokens) {
    if (!add_special_tokens) return;
    wrap(parts[0].encoding, special(cls, 0), special(sep, 0));
    for (size_t i = 1; i < parts.size(); ++i) wrap(parts[i].encoding, {}, special(sep, 1));
  };
}

void clear_types(Encoding& encoding) {
  for (Encoding& window : encoding.overflowing) clear_types(window);
  encoding.type_ids.assign(encoding.ids.size(), 0);
}

// <s> first </s></s> second </s>
PostProcessor build_roberta(const Component& component) {
  return [cls = parse_pair(component, "cls"), sep = parse_pair(component, "sep"),
          trims = component.flag("trim_offsets"),
          trim = trim_offsets(component.flag("add_prefix_space"))](std::vector<Part>& parts,
                                                                   bool add_special_tokens) {
    if (trims) trim(parts, add_special_tokens);
    for (size_t i = 0; i < parts.size(); ++i) {
      clear_types(parts[i].encoding);
      if (!add_special_tokens) continue;
      wrap(parts[i].encoding, special(i == 0 ? cls : sep, 0), special(sep, 0));
    }
  };
}

PostProcessor build_sequence(const Component& component) {
  std::vector<PostProcessor> steps;
  for (const Component& child : component.children("processors")) {
    steps.push_back(build_post_processor(child));
  }
  return [steps = std::move(steps)](std::vector<Part>& parts, bool add_special_tokens) {
    for (const PostProcessor& step : steps) step(parts, add_special_tokens);
  };
}

constexpr Builder<PostProcessor> kPostProcessors[] = {
    {"Sequence", build_sequence},         {"TemplateProcessing", build_template},
    {"ByteLevel", build_byte_level},      {"BertProcessing", build_bert},
    {"RobertaProcessing", build_roberta},
};

}  // namespace

PostProcessor surround(const std::vector<SpecialToken>& before,
                       const std::vector<SpecialToken>& after) {
  Template single;
  Template pair;
  for (size_t text = 0; text < 2; ++text) {
    Template around;
    const auto type_id = static_cast<int32_t>(text);
    const auto put = [&](const std::vector<SpecialToken>& tokens) {
      for (const auto& [token, id] : tokens) {
        around.push_back({.text = {}, .ids = {id}, .tokens = {token}, .type_id = type_id});
      }
    };
    put(before);
    around.push_back({.text = text, .ids = {}, .tokens = {}, .type_id = type_id});
    put(after);
    if (text == 0) single = around;
    pair.insert(pair.end(), around.begin(), around.end());
  }
  return apply_template(std::move(single), std::move(pair), "");
}

PostProcessor build_post_processor(const Component& component) {
  if (component.value.is_null()) return nullptr;
  return build_from<PostProcessor>(kPostProcessors, component);
}

}  // namespace temper::data
