#pragma once

#include <string>
#include <vector>

#include "data/formats/format.h"

/// A prompt with what may follow it, as TRL 1.16's trainers tokenize it.
namespace temper::data {

/// As text, or as turns of a conversation.
struct Prompted {
  bool chat = false;
  std::string prompt;
  std::vector<std::string> completions;
  Json prompt_turns = Json::array();
  std::vector<Json> completion_turns{};
};

/// What stands in these columns. Without a column "prompt" (or with a text beside conversations,
/// where it says what they begin with) the completions are whole texts or conversations and there
/// is no prompt. Throws UserError for what is neither, and for an empty completion.
Prompted read_prompted(const FormatContext& context, const Columns& columns,
                       const std::vector<std::string>& completions);

/// The columns "prompt" and "completion", both text or both messages.
Prompted read_answered(const FormatContext& context, const Columns& columns);

/// The longest common beginning of both completions becomes the prompt, as TRL's extract_prompt
/// finds it: of a text without a space at its end, and always without their last character or turn.
void extract_prompt(Prompted& pair);

/// One document a completion: the prompt and it, and of these the completion's tokens supervised.
///
/// - sft, dpo, kto: text ends in the end-of-sequence token; a completion begins where the tokens of
/// the
///   prompt alone and of prompt and completion part (dpo: the earlier of both).
/// - orpo, cpo: tokenized without special tokens; the beginning-of-sequence token stands before the
///   prompt and the end-of-sequence token behind the completion, of conversations too; a completion
///   begins behind the prompt's tokens, or one token earlier where the last of them has changed.
/// - reward: whole texts that end in the end-of-sequence token; supervised is what is not the same
///   in all of them, and the last token.
std::vector<Example> tokenize_completions(const FormatContext& context, const Columns& columns,
                                          const Prompted& prompted);

/// The turns rendered with the generation prompt.
std::string render_prompt(const FormatContext& context, const Columns& columns, const Json& turns);

}  // namespace temper::data
