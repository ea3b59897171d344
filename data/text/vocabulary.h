#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/text/component.h"

/// The tokens of a model and their ids.
namespace temper::data {

constexpr int32_t kNoToken = -1;

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  /// From the object of token: id in the model's "vocab". Throws UserError for ids out of range.
  static Vocabulary parse(const Component& model);

  /// A token that is there already gets the new id; the old id keeps its spelling.
  void add(const std::string& token, int32_t id);

  /// kNoToken where there is no such token.
  int32_t find(std::string_view token) const;
  /// nullptr for an id that no token has.
  const std::string* token(int32_t id) const;
  /// Number of tokens, which may be less than the largest id.
  int64_t entries() const { return static_cast<int64_t>(ids_.size()); }
  /// One above the largest id.
  int64_t end_id() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const;
  };
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // keys of ids_, which stay where they are
};

}  // namespace temper::data
