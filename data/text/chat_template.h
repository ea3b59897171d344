#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/io/json.h"

/// Chat templates: the Jinja2 that model directories carry, rendered as transformers'
/// apply_chat_template does (Jinja2 3.1.6, sandboxed, trim_blocks and lstrip_blocks on, `{%
/// generation %}` marks).
///
/// A ChatTemplate is an immutable, shareable parse tree; render() may be called from several
/// threads.
namespace temper::data {

struct RenderedChat {
  std::string text;
  /// [start, end) in bytes of `text`: what `{% generation %}` blocks enclosed, in order. Empty
  /// without such blocks.
  std::vector<std::pair<size_t, size_t>> generation_spans;
};

struct ChatInput {
  Json messages;  // an array of objects
  Json tools;     // an array of JSON schemas, or null
  bool add_generation_prompt = false;
  Json extra;  // an object of further variables (chat_template_kwargs), or null
};

class ChatTemplate {
 public:
  /// Throws UserError "<name>:LINE:COLUMN: what" for a template that does not parse.
  static ChatTemplate parse(std::string source, std::string name);
  /// From a model directory: chat_template.jinja, else tokenizer_config.json's chat_template
  /// (string or list; "tool_use" when `with_tools`, else "default"), with its special tokens as
  /// variables; unset when there is none.
  static std::optional<ChatTemplate> load(const std::filesystem::path& directory,
                                          bool with_tools = false);

  /// Throws UserError (raise_exception's text, or an error of the language) that begins with
  /// "<name>:LINE".
  RenderedChat render(const ChatInput& input) const;
  /// Whether the template has `{% generation %}` blocks.
  bool marks_generation() const;
  /// Hex hash of source and special tokens: part of the token cache's key.
  const std::string& fingerprint() const;
  const std::string& source() const;

 private:
  struct State;
  explicit ChatTemplate(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace temper::data
