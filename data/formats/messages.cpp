// Chats: rendered by the template, tokenized without special tokens (the template is their only
// source), learned where the assistant speaks.
#include <algorithm>

#include "data/formats/conversation.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

using Spans = std::vector<std::pair<size_t, size_t>>;

/// What stands before an assistant's turn: the messages before it with their generation prompt.
/// Where that goes on otherwise than the turn does (with an opened thought, say), as much of the
/// generation prompt as both have.
template <class RenderFirst>
std::string beginning_of_turn(const RenderFirst& render_first, size_t turn,
                              const std::string& with) {
  std::string before = render_first(turn, true);
  if (with.starts_with(before)) return before;
  const std::string prompt = render_first(turn, false);
  if (!with.starts_with(prompt) || !before.starts_with(prompt)) return before;
  const auto parted = std::mismatch(before.begin(), before.end(), with.begin(), with.end()).first;
  before.erase(parted, before.end());
  return before;
}

/// Byte spans of the assistant's turns for a template without generation marks: what each assistant
/// message adds to the rendering of the messages before it with their generation prompt.
Spans spans_by_prefixes(const ChatTemplate& chat_template, const ChatInput& whole,
                        const std::string& text) {
  const auto render_first = [&](size_t count, bool generation_prompt) {
    ChatInput input{
        .messages = Json(whole.messages.begin(), whole.messages.begin() + std::ptrdiff_t(count)),
        .tools = whole.tools,
        .add_generation_prompt = generation_prompt,
        .extra = whole.extra};
    return chat_template.render(input).text;
  };
  Spans spans;
  for (size_t i = 0; i < whole.messages.size(); ++i) {
    if (whole.messages[i]["role"] != "assistant") continue;
    if (i == 0) {
      throw UserError(
          "the conversation begins with an assistant turn, whose extent this chat template does "
          "not tell: use a template with "
          "{% generation %} marks, or data.loss_on = \"all\"");
    }
    const std::string with = i + 1 == whole.messages.size() ? text : render_first(i + 1, false);
    const std::string before = beginning_of_turn(render_first, i, with);
    if (!with.starts_with(before) || !text.starts_with(with)) {
      throw UserError("messages[" + std::to_string(i) +
                      "]: the chat template writes this turn otherwise when more follows, so its "
                      "extent is unclear: use a "
                      "template with {% generation %} marks, or data.loss_on = \"all\"");
    }
    spans.emplace_back(before.size(), with.size());
  }
  return spans;
}

/// Marks, for each span, the tokens from the one that holds its first character to the one that
/// holds its last.
void supervise(const Spans& spans, const std::string& text, const Encoding& encoding,
               std::vector<uint8_t>& mask) {
  const auto& offsets = encoding.offsets;
  const auto token_at = [&](size_t byte) {
    const auto found = std::partition_point(
        offsets.begin(), offsets.end(), [&](const auto& offset) { return offset.second <= byte; });
    return size_t(found - offsets.begin());
  };
  for (const auto& [begin, end] : spans) {
    if (begin >= end) continue;
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(text[last]) & 0xc0) == 0x80) --last;
    const size_t first_token = token_at(begin);
    if (first_token == offsets.size()) return;
    const size_t last_token = std::min(token_at(last), offsets.size() - 1);
    for (size_t i = first_token; i <= last_token; ++i) mask[i] = 1;
  }
}

}  // namespace

TokenizedRow encode_messages(const FormatContext& context, const Columns& columns) {
  const ChatTemplate& chat_template = require_template(context);
  const ChatInput input = make_chat_input(columns, read_conversation(context, columns));
  const RenderedChat chat = chat_template.render(input);
  Example example;
  if (context.loss_on == recipes::LossOn::kAll) {
    example.ids = context.tokenizer.encode(chat.text, /*add_special_tokens=*/false);
    example.supervised.assign(example.ids.size(), 1);
    return {.documents = {std::move(example)}, .columns = {}};
  }
  const Encoding encoding =
      context.tokenizer.encode_with_offsets(chat.text, /*add_special_tokens=*/false);
  example.ids = encoding.ids;
  example.supervised.assign(example.ids.size(), 0);
  const Spans spans =
      chat.marked ? chat.generation_spans : spans_by_prefixes(chat_template, input, chat.text);
  supervise(spans, chat.text, encoding, example.supervised);
  return {.documents = {std::move(example)}, .columns = {}};
}

}  // namespace temper::data
