#pragma once

#include <string>
#include <string_view>

#include "data/formats/format.h"

/// What the formats with messages share.
namespace temper::data {

/// The messages in a column, as [{role, content, ...}]; the from/value form is converted (human ->
/// user, gpt -> assistant, observation -> tool, ...; a function_call becomes tool_calls where the
/// chat template knows them). Throws UserError for what is no list of messages, or an empty one.
Json read_messages(const FormatContext& context, const Columns& columns, std::string_view column);

/// The row's messages or conversations; the latter may have their system message in a column.
Json read_conversation(const FormatContext& context, const Columns& columns);

/// A template's input for these messages, with the row's tools and chat_template_kwargs, each a
/// value or its JSON text.
ChatInput make_chat_input(const Columns& columns, Json messages);

/// The model's chat template. Throws UserError saying how to get one where there is none.
const ChatTemplate& require_template(const FormatContext& context);

}  // namespace temper::data
