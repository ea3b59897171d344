#include "data/text/vocabulary.h"

#include <xxhash.h>

namespace temper::data {

namespace {

// Ids index a table: a file whose largest id is far above its number of tokens is a mistake, not a
// vocabulary.
constexpr int64_t kLargestId = (int64_t{1} << 24) - 1;

}  // namespace

size_t Vocabulary::Hash::operator()(std::string_view text) const {
  return XXH3_64bits(text.data(), text.size());
}

Vocabulary Vocabulary::parse(const Component& model) {
  const Json& tokens = model.field("vocab");
  if (!tokens.is_object()) model.fail("'vocab' must be an object of token: id");
  Vocabulary result;
  result.ids_.reserve(tokens.size());
  for (const auto& [token, id] : tokens.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kLargestId) {
      model.fail("vocab: the id of '" + token + "' must be an integer from 0 to " +
                 std::to_string(kLargestId));
    }
    result.add(token, id.get<int32_t>());
  }
  return result;
}

void Vocabulary::add(const std::string& token, int32_t id) {
  const auto index = static_cast<size_t>(id);
  if (index >= tokens_.size()) tokens_.resize(index + 1);
  const auto place = ids_.insert_or_assign(token, id).first;
  tokens_[index] = &place->first;
}

int32_t Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? kNoToken : found->second;
}

const std::string* Vocabulary::token(int32_t id) const {
  const auto index = static_cast<size_t>(id);
  return id >= 0 && index < tokens_.size() ? tokens_[index] : nullptr;
}

}  // namespace temper::data
