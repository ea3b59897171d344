#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "data/text/component.h"
#include "data/text/normalizer.h"
#include "data/text/passage.h"

/// Tokens that are found in the text before the model sees it: control tokens, tags, runs of
/// spaces.
namespace temper::data {

struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no word character is next to it
  bool lstrip = false;       // takes in the whitespace on its left
  bool rstrip = false;       // and on its right
  bool normalized = true;    // looked for in normalized text, else in the text as it came
  bool special = false;      // decode can skip it
  bool operator==(const AddedToken&) const = default;

  static AddedToken parse(const Component& component);
};

/// A piece of text: an added token, or (without id) what lies between them.
struct Piece {
  Span span;
  std::optional<int32_t> id;
};

class AddedTokens {
 public:
  /// The id is `known` where the model has the content, else the next free one: ids in files are
  /// not obeyed. A content that is there already gets the new flags.
  void add(const AddedToken& token, std::optional<int32_t> known, int64_t model_entries);
  /// To be called once after the last add().
  void prepare(const Normalizer& normalizer);

  /// Cuts text at the tokens that are looked for in normalized text, or at the others. Pieces are
  /// not empty.
  void split(std::string_view text, bool normalized, std::vector<Piece>& pieces) const;

  std::optional<int32_t> token_to_id(const std::string& content) const;
  const AddedToken* find(int32_t id) const;
  /// What decoding makes of an id: the content, normalized where the token is looked for in
  /// normalized text.
  const std::string* spelling(int32_t id) const;
  bool is_special(const std::string& content) const { return special_.contains(content); }
  /// One above the largest id, 0 without any.
  int64_t end_id() const;

 private:
  // A tree over bytes: the longest pattern that begins at a place wins, and among places the
  // leftmost.
  class Matcher {
   public:
    void add(std::string_view pattern, int32_t id);
    /// The longest match at text[at]: its end and id.
    std::optional<std::pair<size_t, int32_t>> match(std::string_view text, size_t at) const;
    bool is_empty() const { return nodes_.size() == 1; }

   private:
    struct Node {
      std::vector<std::pair<char, uint32_t>> next;
      int32_t id = -1;
    };
    std::vector<Node> nodes_ = std::vector<Node>(1);
    std::vector<bool> begins_ = std::vector<bool>(256);
  };

  std::map<int32_t, AddedToken> tokens_;
  std::map<int32_t, std::string> spellings_;
  std::map<std::string, int32_t> ids_;
  std::unordered_set<std::string> special_;
  Matcher raw_;
  Matcher normalized_;
};

}  // namespace temper::data
