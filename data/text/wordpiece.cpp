#include <algorithm>
#include <string>
#include <utility>

#include "data/text/model.h"
#include "data/text/piece_tree.h"
#include "data/text/unicode.h"
#include "recipes/diagnostic.h"

/// WordPiece (the longest match first, else the whole word is unknown) and WordLevel (the word as
/// it is, else unknown).
namespace temper::data {

namespace {

[[noreturn]] void fail_unknown(std::string_view word, const std::string& unknown_token) {
  throw UserError("'" + std::string(word.substr(0, 64)) +
                  "' is unknown to the tokenizer, whose vocabulary lacks its unk_token '" +
                  unknown_token + "'");
}

class WordPiece : public Model {
 public:
  WordPiece(const Component& component, Vocabulary vocabulary)
      : Model(std::move(vocabulary)),
        unknown_token_(component.text("unk_token")),
        unknown_(this->vocabulary().find(unknown_token_)),
        first_(list_pieces(this->vocabulary())),
        next_(list_pieces(this->vocabulary(), component.text("continuing_subword_prefix"))),
        longest_word_(component.integer("max_input_chars_per_word")) {}

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    const size_t before = tokens.size();
    const auto characters = std::count_if(word.begin(), word.end(),
                                          [](char byte) { return !continues_character(byte); });
    bool known = characters <= longest_word_;
    for (size_t begin = 0; known && begin < word.size();) {
      WordToken longest{kNoToken, static_cast<uint32_t>(begin), 0};
      (begin == 0 ? first_ : next_).find_all(word, begin, [&](int32_t id, size_t end) {
        longest.id = id;
        longest.end = static_cast<uint32_t>(end);
      });
      known = longest.id != kNoToken;
      tokens.push_back(longest);
      begin = longest.end;
    }
    if (known) return;
    tokens.resize(before);
    if (unknown_ == kNoToken) fail_unknown(word, unknown_token_);
    tokens.push_back({unknown_, 0, static_cast<uint32_t>(word.size())});
  }

 private:
  std::string unknown_token_;
  int32_t unknown_;
  PieceTree first_;  // what a word may begin with
  PieceTree next_;   // and go on with
  int64_t longest_word_;
};

class WordLevel : public Model {
 public:
  WordLevel(const Component& component, Vocabulary vocabulary)
      : Model(std::move(vocabulary)),
        unknown_token_(component.text("unk_token")),
        unknown_(this->vocabulary().find(unknown_token_)) {}

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    int32_t id = vocabulary().find(word);
    if (id == kNoToken) id = unknown_;
    if (id == kNoToken) fail_unknown(word, unknown_token_);
    tokens.push_back({id, 0, static_cast<uint32_t>(word.size())});
  }

 private:
  std::string unknown_token_;
  int32_t unknown_;
};

}  // namespace

std::unique_ptr<Model> build_wordpiece(const Component& component) {
  return std::make_unique<WordPiece>(component, Vocabulary::parse(component));
}

std::unique_ptr<Model> build_wordlevel(const Component& component) {
  return std::make_unique<WordLevel>(component, Vocabulary::parse(component));
}

}  // namespace temper::data
