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
  /// [start, end) in bytes of `text`: what `{% generation %}` blocks enclosed, in order.
  std::vector<std::pair<size_t, size_t>> generation_spans;
  bool marked = false;  // the template has such blocks
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
  /// From a model directory: chat_template.jinja and additional_chat_templates/*.jinja, else
  /// tokenizer_config.json's chat_template (a string, or a list of {name, template}), with its
  /// special tokens as variables; unset when there is none. Of several, "tool_use" renders chats
  /// with tools and "default" all others.
  static std::optional<ChatTemplate> load(const std::filesystem::path& directory);

  /// Throws UserError (raise_exception's text, or an error of the language) that begins with
  /// "<name>:LINE:COLUMN".
  RenderedChat render(const ChatInput& input) const;
  /// Whether a template's source has this name in it.
  bool mentions(std::string_view name) const;
  /// Hex hash of sources and special tokens: part of the token cache's key.
  const std::string& fingerprint() const;

 private:
  struct State;
  explicit ChatTemplate(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace temper::data
