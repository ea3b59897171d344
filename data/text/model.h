#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "data/text/component.h"
#include "data/text/vocabulary.h"

/// Models: how a word becomes tokens of the vocabulary.
namespace temper::data {

/// A token of a word and the bytes of the word that it stands for.
struct WordToken {
  int32_t id;
  uint32_t begin;
  uint32_t end;
};

class Model {
 public:
  explicit Model(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// Appends the tokens of the word, valid UTF-8 that is not empty. May be called from several
  /// threads. Throws UserError for a word with unknown parts where the model has no token for
  /// those.
  virtual void tokenize(std::string_view word, std::vector<WordToken>& tokens) const = 0;
  /// Where the word's first `part` bytes may be cut off and tokenized by themselves, with the same
  /// tokens in the end; the whole size where the model knows no such place.
  virtual size_t independent_part(std::string_view word) const { return word.size(); }
  /// Whether a token of this id is spelled as the text that it stands for.
  virtual bool spells_as_text(int32_t) const { return false; }

 private:
  Vocabulary vocabulary_;
};

/// From tokenizer.json's "model". Old files leave the type out; it is then told by the fields.
/// Throws UserError for what is malformed or not supported.
std::unique_ptr<Model> build_model(const Component& component);

/// One for each type: bpe.cpp, unigram.cpp, wordpiece.cpp.
std::unique_ptr<Model> build_bpe(const Component& component);
std::unique_ptr<Model> build_unigram(const Component& component);
std::unique_ptr<Model> build_wordpiece(const Component& component);
std::unique_ptr<Model> build_wordlevel(const Component& component);

}  // namespace temper::data
