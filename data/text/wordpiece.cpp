#include <algorithm>
#include <string>
#include <utility>

#include "data/text/model.h"
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
        prefix_(component.text("continuing_subword_prefix")),
        longest_word_(component.integer("max_input_chars_per_word")) {}

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    const size_t before = tokens.size();
    const auto characters = std::count_if(word.begin(), word.end(),
                                          [](char byte) { return !continues_character(byte); });
    bool known = characters <= longest_word_;
    for (size_t begin = 0; known && begin < word.size();) {
      const size_t end = longest_match(word, begin, tokens);
      known = end > begin;
      begin = end;
    }
    if (known) return;
    tokens.resize(before);
    if (unknown_ == kNoToken) fail_unknown(word, unknown_token_);
    tokens.push_back({unknown_, 0, static_cast<uint32_t>(word.size())});
  }

 private:
  // The end of the longest token that begins there, or `begin`.
  size_t longest_match(std::string_view word, size_t begin, std::vector<WordToken>& tokens) const {
    thread_local std::string candidate;
    candidate = begin > 0 ? prefix_ : "";
    candidate += word.substr(begin);
    for (size_t end = word.size(); end > begin;) {
      if (const int32_t id = vocabulary().find(candidate); id != kNoToken) {
        tokens.push_back({id, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
        return end;
      }
      const size_t last = end;
      do --end;
      while (continues_character(word[end]));
      candidate.resize(candidate.size() - (last - end));
    }
    return begin;
  }

  std::string unknown_token_;
  int32_t unknown_;
  std::string prefix_;  // of every token but a word's first
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
