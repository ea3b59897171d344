#include "data/formats/completions.h"

#include <algorithm>
#include <utility>

#include "data/formats/conversation.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

using Ids = std::vector<int32_t>;

template <class Sequence>
size_t common_length(const Sequence& a, const Sequence& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

// The beginning of the character that holds this byte.
size_t character_at(const std::string& text, size_t byte) {
  while (byte > 0 && byte < text.size() && (static_cast<unsigned char>(text[byte]) & 0xc0) == 0x80)
    --byte;
  return byte;
}

Json joined(const Json& turns, const Json& more) {
  Json all = turns;
  for (const Json& turn : more) all.push_back(turn);
  return all;
}

std::string render(const FormatContext& context, const Columns& columns, Json turns) {
  return require_template(context).render(make_chat_input(columns, std::move(turns))).text;
}

Example supervised_from(Ids ids, size_t begin) {
  Example example{.ids = std::move(ids), .supervised = {}};
  example.supervised.assign(example.ids.size(), 1);
  std::fill_n(example.supervised.begin(), std::min(begin, example.ids.size()), uint8_t{0});
  return example;
}

// Prompt and completions, each with the prompt before it, as ids with special tokens.
struct Tokenized {
  Ids prompt;
  std::vector<Ids> whole;
};

Tokenized tokenize(const FormatContext& context, const Columns& columns, const Prompted& prompted) {
  Tokenized tokens;
  if (prompted.chat) {
    const auto encode = [&](const std::string& text) {
      return context.tokenizer.encode(text, /*add_special_tokens=*/false);
    };
    if (!prompted.prompt_turns.empty())
      tokens.prompt = encode(render_prompt(context, columns, prompted.prompt_turns));
    for (const Json& turns : prompted.completion_turns) {
      tokens.whole.push_back(
          encode(render(context, columns, joined(prompted.prompt_turns, turns))));
    }
    return tokens;
  }
  tokens.prompt = context.tokenizer.encode(prompted.prompt);
  for (const std::string& text : prompted.completions) {
    tokens.whole.push_back(
        context.tokenizer.encode(prompted.prompt + with_end_token(context.tokenizer, text)));
  }
  return tokens;
}

std::vector<Example> tokenize_by_common_prefix(const FormatContext& context, const Columns& columns,
                                               const Prompted& prompted) {
  Tokenized tokens = tokenize(context, columns, prompted);
  std::vector<size_t> begins;
  for (const Ids& whole : tokens.whole) begins.push_back(common_length(tokens.prompt, whole));
  if (context.kind == "dpo")
    begins.assign(begins.size(), *std::min_element(begins.begin(), begins.end()));
  std::vector<Example> documents;
  for (size_t i = 0; i < begins.size(); ++i)
    documents.push_back(supervised_from(std::move(tokens.whole[i]), begins[i]));
  return documents;
}

std::vector<Example> tokenize_whole(const FormatContext& context, const Columns& columns,
                                    const Prompted& prompted) {
  Tokenized tokens = tokenize(context, columns, prompted);
  size_t common = tokens.whole.front().size();
  for (const Ids& whole : tokens.whole)
    common = std::min(common, common_length(tokens.whole.front(), whole));
  std::vector<Example> documents;
  for (Ids& whole : tokens.whole) {
    const size_t last = std::max<size_t>(whole.size(), 1) - 1;
    documents.push_back(supervised_from(std::move(whole), std::min(common, last)));
  }
  return documents;
}

// The prompt as text and each completion behind it. Of a conversation the prompt is what its
// rendering has in common with that of each completion.
std::pair<std::string, std::vector<std::string>> as_text(const FormatContext& context,
                                                         const Columns& columns,
                                                         const Prompted& prompted) {
  std::string prompt = prompted.prompt;
  std::vector<std::string> whole;
  if (prompted.chat) {
    const std::string& role = prompted.prompt_turns.back()["role"].get_ref<const std::string&>();
    if (role != "user" && role != "tool") {
      throw UserError("the prompt ends in a turn of \"" + role +
                      "\": must be one of the user or of a tool");
    }
    prompt = render_prompt(context, columns, prompted.prompt_turns);
    for (const Json& turns : prompted.completion_turns) {
      whole.push_back(render(context, columns, joined(prompted.prompt_turns, turns)));
      prompt.resize(character_at(whole.back(), common_length(prompt, whole.back())));
    }
    return {prompt, whole};
  }
  for (const std::string& text : prompted.completions) whole.push_back(prompt + text);
  return {prompt, whole};
}

std::vector<Example> tokenize_answers(const FormatContext& context, const Columns& columns,
                                      const Prompted& prompted) {
  const auto [prompt, texts] = as_text(context, columns, prompted);
  const Ids prompt_ids = context.tokenizer.encode(prompt, /*add_special_tokens=*/false);
  const auto bos = context.tokenizer.bos_id();
  const auto eos = context.tokenizer.eos_id();
  std::vector<Example> documents;
  for (const std::string& text : texts) {
    Ids ids = context.tokenizer.encode(text, /*add_special_tokens=*/false);
    size_t begin = prompt_ids.size();
    if (common_length(prompt_ids, ids) < begin) --begin;
    begin = std::min(begin, ids.size());
    if (eos && (ids.size() == begin || ids.back() != *eos)) ids.push_back(*eos);
    if (bos && (begin == 0 || ids.front() != *bos)) {
      ids.insert(ids.begin(), *bos);
      ++begin;
    }
    documents.push_back(supervised_from(std::move(ids), begin));
  }
  return documents;
}

}  // namespace

Prompted read_prompted(const FormatContext& context, const Columns& columns,
                       const std::vector<std::string>& completions) {
  Prompted prompted;
  const Json* first = columns.find(completions.front());
  prompted.chat = first && first->is_array();
  for (const std::string& name : completions) {
    if (prompted.chat) {
      prompted.completion_turns.push_back(read_messages(context, columns, name));
    } else {
      prompted.completions.push_back(columns.text(name));
      if (prompted.completions.back().empty())
        throw UserError(columns.name_in_file(name) + " is empty");
    }
  }
  const Json* prompt = columns.find("prompt");
  if (!prompt || (prompted.chat && prompt->is_string())) return prompted;
  if (prompted.chat) {
    prompted.prompt_turns = read_messages(context, columns, "prompt");
  } else {
    prompted.prompt = columns.text("prompt");
  }
  return prompted;
}

Prompted read_answered(const FormatContext& context, const Columns& columns) {
  const std::string name = columns.name_in_file("prompt");
  if (!columns.find("prompt"))
    throw UserError(name + " is missing or null: must be a string or a list of messages");
  Prompted prompted = read_prompted(context, columns, {"completion"});
  if (prompted.chat && prompted.prompt_turns.empty())
    throw UserError(name + " is text beside a completion of messages: both must be the same");
  return prompted;
}

void extract_prompt(Prompted& pair) {
  if (pair.chat) {
    Json& chosen = pair.completion_turns[0];
    Json& rejected = pair.completion_turns[1];
    const size_t shorter = std::min(chosen.size(), rejected.size());
    const size_t common = std::min(common_length(chosen, rejected), shorter - 1);
    if (common == 0)
      throw UserError("chosen and rejected have no turn in common that could be the prompt");
    const auto split = [&](Json& turns) {
      Json rest(turns.begin() + std::ptrdiff_t(common), turns.end());
      pair.prompt_turns = Json(turns.begin(), turns.begin() + std::ptrdiff_t(common));
      turns = std::move(rest);
    };
    split(chosen);
    split(rejected);
    return;
  }
  std::string& chosen = pair.completions[0];
  std::string& rejected = pair.completions[1];
  const std::string& shorter = chosen.size() < rejected.size() ? chosen : rejected;
  size_t common = character_at(shorter, common_length(chosen, rejected));
  if (common == shorter.size()) {
    common = character_at(shorter, shorter.size() - 1);
  } else if (common > 0 && shorter[common - 1] == ' ') {
    --common;
  }
  pair.prompt = chosen.substr(0, common);
  chosen.erase(0, common);
  rejected.erase(0, common);
}

std::vector<Example> tokenize_completions(const FormatContext& context, const Columns& columns,
                                          const Prompted& prompted) {
  if (context.kind == "reward") return tokenize_whole(context, columns, prompted);
  if (context.kind == "orpo" || context.kind == "cpo")
    return tokenize_answers(context, columns, prompted);
  return tokenize_by_common_prefix(context, columns, prompted);
}

std::string render_prompt(const FormatContext& context, const Columns& columns, const Json& turns) {
  ChatInput input = make_chat_input(columns, turns);
  input.add_generation_prompt = true;
  return require_template(context).render(input).text;
}

}  // namespace temper::data
