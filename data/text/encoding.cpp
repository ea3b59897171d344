#include "data/text/encoding.h"

#include <cstddef>

namespace temper::data {

namespace {

// visit(column of `to`, the same column of `from`).
template <typename Visit>
void for_each_column(Encoding& to, const Encoding& from, const Visit& visit) {
  visit(to.ids, from.ids);
  visit(to.tokens, from.tokens);
  visit(to.offsets, from.offsets);
  visit(to.words, from.words);
  visit(to.type_ids, from.type_ids);
  visit(to.special_tokens_mask, from.special_tokens_mask);
  visit(to.attention_mask, from.attention_mask);
}

Encoding both(const Encoding& left, const Encoding& right) {
  Encoding result = slice(left, 0, left.ids.size());
  append(result, right);
  return result;
}

}  // namespace

Encoding special_encoding(std::span<const int32_t> ids, std::span<const std::string> tokens,
                          int32_t type_id) {
  const size_t count = ids.size();
  return {.ids = {ids.begin(), ids.end()},
          .tokens = {tokens.begin(), tokens.end()},
          .offsets = std::vector<std::pair<uint32_t, uint32_t>>(count),
          .words = std::vector<int32_t>(count, kNoWord),
          .type_ids = std::vector<int32_t>(count, type_id),
          .special_tokens_mask = std::vector<uint8_t>(count, 1),
          .attention_mask = std::vector<uint8_t>(count, 1),
          .overflowing = {}};
}

Encoding slice(const Encoding& encoding, size_t begin, size_t end) {
  Encoding result;
  for_each_column(result, encoding, [&](auto& to, const auto& from) {
    to.assign(from.begin() + static_cast<std::ptrdiff_t>(begin),
              from.begin() + static_cast<std::ptrdiff_t>(end));
  });
  return result;
}

void append(Encoding& encoding, const Encoding& more) {
  for_each_column(encoding, more, [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  });
}

Encoding concatenate(std::vector<Encoding> pieces) {
  if (pieces.empty()) return {};
  Encoding result = std::move(pieces.front());
  for (size_t i = 1; i < pieces.size(); ++i) {
    const Encoding& piece = pieces[i];
    std::vector<Encoding> windows;
    for (const Encoding& window : result.overflowing) {
      windows.push_back(both(window, piece));
      for (const Encoding& other : piece.overflowing) windows.push_back(both(window, other));
    }
    for (const Encoding& other : piece.overflowing) windows.push_back(both(result, other));
    append(result, piece);
    result.overflowing = std::move(windows);
  }
  return result;
}

}  // namespace temper::data
