#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "data/text/added_tokens.h"
#include "data/text/encoding.h"
#include "data/text/normalizer.h"
#include "data/text/post_processor.h"
#include "data/text/pre_tokenizer.h"
#include "data/text/truncation.h"
#include "data/text/word_encoder.h"

/// From text to tokens: the parts in the order in which a text goes through them.
namespace temper::data {

struct Pipeline {
  AddedTokens added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  WordEncoder words;
  PostProcessor post_processor;
  std::vector<int32_t> before, after;  // what the post-processor puts around a text that is no pair

  /// Sets `before` and `after`, without which encode_ids() knows no special tokens.
  void find_surroundings();

  std::vector<int32_t> encode_ids(std::string_view text, bool add_special_tokens) const;
  /// Of one text or two; see Tokenizer.
  Encoding encode(const std::vector<std::string_view>& texts, bool add_special_tokens,
                  std::optional<Truncation> truncation) const;

 private:
  struct Writer;
  void put_words(Passage& passage, Writer& writer) const;
  void put_tokens(std::string_view text, Writer& writer) const;
  Part encode_part(std::string_view text, int32_t type_id) const;
  Encoding finish(std::vector<Part> parts, bool add_special_tokens) const;
};

}  // namespace temper::data
