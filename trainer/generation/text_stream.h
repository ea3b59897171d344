#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace temper::data {
class Tokenizer;
}

namespace temper::trainer {

/// Turns the tokens of one completion into text as they come. What could still change is held back:
/// a character whose bytes are not all there (the decoder writes U+FFFD for it), and an end that
/// could be the beginning of a stop string.
///
///     TextStream stream(tokenizer, {"\n\n"}, print);
///     while (!stream.push(next_token())) {}
///     stream.finish();
class TextStream {
 public:
  TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stop,
             std::function<void(const std::string&)> on_text);

  /// True when a stop string has appeared: text() then ends before it.
  bool push(int32_t id);
  /// No more tokens: releases what was held back. True when that completes a stop string.
  bool finish();
  /// All text given out so far.
  const std::string& text() const { return text_; }

 private:
  bool release(const std::string& fresh, bool last);

  const data::Tokenizer& tokenizer_;
  std::vector<std::string> stop_;
  std::function<void(const std::string&)> on_text_;
  std::vector<int32_t> ids_;
  // Decoders treat the first token of what they are given in their own way (a leading space goes),
  // so the text of new tokens is the difference of two decodings that begin at the same token:
  // ids_[context_ ..] with and without those from fresh_ on.
  size_t context_ = 0;
  size_t fresh_ = 0;
  std::string held_;  // decoded, but could begin a stop string
  std::string text_;
  bool stopped_ = false;
};

}  // namespace temper::trainer
