#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/model.h"
#include "data/text/passage.h"

/// The model as the pipeline calls it: words seen lately come from a cache that each thread keeps
/// for itself, so encode() may be called from several threads.
namespace temper::data {

class WordEncoder {
 public:
  /// `spells_bytes`: the model's words are written in the letters of byte_level.h, and encode() is
  /// given the bytes that they stand for.
  WordEncoder(std::unique_ptr<const Model> model, bool spells_bytes);

  const Model& model() const { return *model_; }
  /// Appends the ids of the word's tokens and, where `spans` is not null, the bytes of the word
  /// that each stands for. The word must not be empty.
  void encode(std::string_view word, std::vector<int32_t>& ids, std::vector<Span>* spans) const;
  /// How the token of this part of a word is spelled.
  std::string spelling(int32_t id, std::string_view part) const;

 private:
  void encode_part(std::string_view part, uint32_t at, std::vector<int32_t>& ids,
                   std::vector<Span>* spans) const;
  void tokenize(std::string_view part, std::vector<WordToken>& tokens) const;

  std::unique_ptr<const Model> model_;
  bool spells_bytes_;
  uint64_t instance_;
};

}  // namespace temper::data
